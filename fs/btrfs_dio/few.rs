// SPDX-License-Identifier: GPL-2.0

//! Vectors that rarely have more than one element: the first one needs no memory beside.

use kernel::{
    alloc::{
        AllocError,
        Flags, //
    },
    prelude::*,
};

/// A vector, whose first element lies in it as long as it is the only one.
pub(crate) struct Few<T> {
    /// `None` if there is no element, or more than one.
    one: Option<T>,
    /// All elements, if there is more than one.
    more: KVVec<T>,
}

impl<T> Few<T> {
    /// Makes an empty vector.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            one: None,
            more: KVVec::new(),
        }
    }

    /// Adds an element.
    pub(crate) fn push(&mut self, value: T, gfp: Flags) -> Result<(), AllocError> {
        if self.more.is_empty() {
            match self.one.take() {
                None => {
                    self.one = Some(value);
                    return Ok(());
                }
                Some(first) => self.more.push(first, gfp)?,
            }
        }
        self.more.push(value, gfp)
    }

    /// Returns all elements.
    pub(crate) fn as_slice(&self) -> &[T] {
        if self.more.is_empty() {
            self.one.as_slice()
        } else {
            &self.more
        }
    }

    /// Returns all elements, to be changed.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        if self.more.is_empty() {
            self.one.as_mut_slice()
        } else {
            &mut self.more
        }
    }
}
