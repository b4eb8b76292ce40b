// SPDX-License-Identifier: GPL-2.0

//! What makes data that has arrived the right data.
//!
//! Data with checksums is right if it has them: they were looked up while the space was known to be
//! the file's, so what matches them is what the file held then, even if the space has been given
//! away since. Data without is right if the extent has been the file's all the time.

use crate::{
    bio::Arrival,
    error::{
        Reason,
        Stop, //
    },
    plan::Plan,
    safe::user_pages::UserPages,
    stats::{
        self,
        Counter, //
    },
};
/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The data is right.
    Right,
    /// The extents have changed meanwhile: the data may be somebody else's.
    Changed,
}

/// Decides on the data of a window, all of whose bios have ended.
///
/// Task context.
pub(crate) fn check(
    plan: &Plan,
    pages: &UserPages<'_>,
    arrival: &Arrival,
) -> Result<Outcome, Stop> {
    arrival.submitted.map_err(Stop::from_mapping)?;
    if arrival.status.is_err() {
        stats::count(Counter::IoErrors);
        return Err(Reason::Io.into());
    }
    if let Some(expected) = plan.expected() {
        let bad = expected.mismatches(plan.segments(), pages);
        if bad > 0 {
            stats::add(Counter::ChecksumMismatches, bad);
            return Err(Reason::Checksum.into());
        }
    }
    if plan.is_current() {
        Ok(Outcome::Right)
    } else {
        Ok(Outcome::Changed)
    }
}
