// SPDX-License-Identifier: GPL-2.0

//! Memory: vectors whose growth can fail, though here it never does.

use core::ops::{Deref, DerefMut};

/// There is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocError;

/// How to allocate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(());

/// Those that are used.
pub mod flags {
    use super::Flags;

    pub const GFP_KERNEL: Flags = Flags(());
    pub const GFP_NOWAIT: Flags = Flags(());
}

/// A vector.
#[derive(Debug, Default)]
pub struct KVVec<T>(Vec<T>);

impl<T> KVVec<T> {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn with_capacity(capacity: usize, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(Vec::with_capacity(capacity)))
    }

    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub fn push(&mut self, value: T, _flags: Flags) -> Result<(), AllocError> {
        self.0.push(value);
        Ok(())
    }
}

impl KVVec<u8> {
    pub fn zeroed(len: usize, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self(vec![0; len]))
    }
}

impl<T> Deref for KVVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for KVVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}
