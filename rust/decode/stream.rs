// SPDX-License-Identifier: GPL-2.0

//! What is common to the algorithms that make one stream of an extent.

use super::{
    Extent,
    Output, //
};
use kernel::prelude::*;

/// Size in bytes of the memory that bytes go to which nobody wants.
pub(super) const SCRATCH: usize = 16 << 10;

/// What one step has brought.
pub(super) struct Step {
    /// Bytes made.
    pub(super) made: usize,
    /// Whether no more can come.
    pub(super) end: bool,
}

/// A stream that is being decoded.
pub(super) trait Stream {
    /// Decodes the next `len` bytes to `to`, or less.
    ///
    /// Fails with `EIO` if the stream is malformed.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of `len` bytes for the duration of the call.
    unsafe fn step(&mut self, to: *mut u8, len: usize) -> Result<Step>;
}

/// A stream, and whether its end has been reached: nothing may be asked of it then.
struct Source<'a, S: Stream> {
    stream: &'a mut S,
    end: bool,
}

/// Decodes what is wanted of `extent`.
pub(super) fn extent(
    stream: &mut impl Stream,
    scratch: &mut [u8],
    extent: &Extent<'_>,
    output: &mut Output<'_>,
) -> Result {
    let mut source = Source { stream, end: false };
    if source.pass_over(scratch, extent.skip)? {
        source.write(output)?;
    }
    Ok(())
}

/// Decodes the start of an inline extent, and sees that there is as much as there should be.
pub(super) fn inline(
    stream: &mut impl Stream,
    scratch: &mut [u8],
    extent: &Extent<'_>,
    out: &mut [u8],
) -> Result {
    let beyond = extent.ram_bytes.saturating_sub(out.len());
    let mut source = Source { stream, end: false };
    let mut output = Output::slice(out);
    source.write(&mut output)?;
    if output.left() == 0 && source.pass_over(scratch, beyond)? {
        Ok(())
    } else {
        Err(EIO)
    }
}

impl<S: Stream> Source<'_, S> {
    /// Decodes until `output` is full or the stream ends.
    fn write(&mut self, output: &mut Output<'_>) -> Result {
        while !self.end && output.left() > 0 {
            // SAFETY: `to` is memory to write to over `len` bytes, by `chunk()`.
            output.chunk(usize::MAX, |to, len| unsafe { self.step(to, len) })?;
        }
        Ok(())
    }

    /// Decodes `bytes` to nowhere. Returns whether there were as many.
    fn pass_over(&mut self, scratch: &mut [u8], mut bytes: usize) -> Result<bool> {
        while !self.end && bytes > 0 {
            let len = bytes.min(scratch.len());
            // SAFETY: `scratch` has `len` bytes at the least.
            let made = unsafe { self.step(scratch.as_mut_ptr(), len) }?;
            bytes = bytes.saturating_sub(made);
        }
        Ok(bytes == 0)
    }

    /// Decodes the next `len` bytes to `to`, or less; returns how many.
    ///
    /// Fails with `EIO` if the stream is malformed, or one step would be like the other for ever.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of `len` bytes for the duration of the call.
    unsafe fn step(&mut self, to: *mut u8, len: usize) -> Result<usize> {
        // SAFETY: By the contract of this function.
        let step = unsafe { self.stream.step(to, len) }?;
        self.end = step.end;
        if step.made == 0 && !step.end {
            return Err(EIO);
        }
        Ok(step.made)
    }
}
