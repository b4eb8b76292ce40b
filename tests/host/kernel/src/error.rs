// SPDX-License-Identifier: GPL-2.0

//! Errors, and their numbers.

/// An error: a negative errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(i32);

/// What the kernel calls a result.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

impl Error {
    /// Makes one of a negative errno.
    pub fn from_errno(errno: i32) -> Self {
        Self(errno)
    }

    /// Returns the negative errno.
    pub fn to_errno(self) -> i32 {
        self.0
    }
}

impl From<crate::alloc::AllocError> for Error {
    fn from(_: crate::alloc::AllocError) -> Self {
        code::ENOMEM
    }
}

/// Turns a negative errno into an error.
pub fn to_result(errno: i32) -> Result {
    if errno < 0 {
        Err(Error(errno))
    } else {
        Ok(())
    }
}

/// Those that are used.
pub mod code {
    use super::Error;

    pub const EIO: Error = Error(-5);
    pub const EAGAIN: Error = Error(-11);
    pub const ENOMEM: Error = Error(-12);
    pub const EINVAL: Error = Error(-22);
    pub const EOPNOTSUPP: Error = Error(-95);
    pub const EUCLEAN: Error = Error(-117);
}
