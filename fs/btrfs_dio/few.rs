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
    /// All elements, if there is more than one. Not an empty vector: to drop one is to call the
    /// allocator.
    more: Option<KVVec<T>>,
}

impl<T> Few<T> {
    /// Makes an empty vector.
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self {
            one: None,
            more: None,
        }
    }

    /// Makes a vector of one element.
    pub(crate) const fn of(value: T) -> Self {
        Self {
            one: Some(value),
            more: None,
        }
    }

    /// Makes an empty vector with room for `count` elements.
    pub(crate) fn with_room(count: usize, gfp: Flags) -> Result<Self, AllocError> {
        let mut few = Self::new();
        few.reserve(count, gfp)?;
        Ok(few)
    }

    /// Makes room for `count` elements, if there is none yet.
    #[inline]
    pub(crate) fn reserve(&mut self, count: usize, gfp: Flags) -> Result<(), AllocError> {
        if count > 1 && self.as_slice().is_empty() {
            self.more = Some(KVVec::with_capacity(count, gfp)?);
        }
        Ok(())
    }

    /// Adds an element.
    #[inline]
    pub(crate) fn push(&mut self, value: T, gfp: Flags) -> Result<(), AllocError> {
        if self.one.is_none() && self.more.is_none() {
            self.one = Some(value);
            return Ok(());
        }
        self.push_more(value, gfp)
    }

    /// As [`Self::push`], if it is not the first one.
    #[inline(never)]
    fn push_more(&mut self, value: T, gfp: Flags) -> Result<(), AllocError> {
        let more = match &mut self.more {
            Some(more) => more,
            none => none.insert(KVVec::new()),
        };
        if let Some(first) = self.one.take() {
            more.push(first, gfp)?;
        }
        more.push(value, gfp)
    }

    /// Adds an element, if there is room for it. Does not sleep.
    ///
    /// If no room was made, then room for `few` elements is made once, when a second one is added.
    #[inline]
    pub(crate) fn push_within(&mut self, value: T, few: usize) -> Result<(), AllocError> {
        if self.one.is_none() && self.more.is_none() {
            self.one = Some(value);
            return Ok(());
        }
        self.push_more_within(value, few)
    }

    /// As [`Self::push_within`], if it is not the first one.
    #[inline(never)]
    fn push_more_within(&mut self, value: T, few: usize) -> Result<(), AllocError> {
        let more = match &mut self.more {
            Some(more) => more,
            none => none.insert(KVVec::with_capacity(few.max(2), GFP_NOWAIT)?),
        };
        let taken = more.len().saturating_add(usize::from(self.one.is_some()));
        if taken >= more.capacity() {
            return Err(AllocError);
        }
        // There is room: nothing is allocated.
        if let Some(first) = self.one.take() {
            more.push(first, GFP_NOWAIT)?;
        }
        more.push(value, GFP_NOWAIT)
    }

    /// Returns all elements.
    pub(crate) fn as_slice(&self) -> &[T] {
        match &self.more {
            Some(more) => more,
            None => self.one.as_slice(),
        }
    }

    /// Returns all elements, to be changed.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.more {
            Some(more) => more,
            None => self.one.as_mut_slice(),
        }
    }
}
