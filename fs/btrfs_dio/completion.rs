// SPDX-License-Identifier: GPL-2.0

//! What makes data that has arrived the right data, and delivers it.
//!
//! Data with checksums is right if it has them: they were looked up while the space was known to be
//! the file's, so what matches them is what the file held then, even if the space has been given
//! away since. Data without is right if the extent has been the file's all the time.

use crate::{
    attempt::Placement,
    error::Stop,
    plan::Plan,
    resources::Resources,
    safe::user_pages::UserPages,
    stats::{
        self,
        Counter, //
    },
    verify,
};
use kernel::prelude::*;

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The data is right, and in the caller's memory.
    Right,
    /// The extents have changed meanwhile: the data may be somebody else's.
    Changed,
    /// A checksum does not match in the caller's memory, where others may have written as well.
    Mismatch,
    /// A device has failed, or is not there, or has supplied what does not match.
    Failed,
    /// The devices cannot write to the caller's memory.
    Misfit,
}

/// Returns whether data that has arrived in the caller's memory is right. Any context.
pub(crate) fn is_right(plan: &mut Plan, pages: &UserPages<'_>) -> bool {
    let scratch = plan.deliveries.scratch();
    let wrong = match &plan.fetches.expected {
        Some(expected) => verify::mismatches(expected, &plan.fetches, pages, scratch),
        None => 0,
    };
    wrong == 0 && plan.is_current()
}

/// Decides on the data of a window, all of whose bios have ended with `status`, and delivers what
/// is in private memory.
///
/// Task context, sleeps; no extent bit held.
pub(crate) fn finish(
    resources: &Resources,
    plan: &mut Plan,
    placement: Placement,
    pages: &UserPages<'_>,
    status: Result,
) -> Result<Outcome, Stop> {
    match status {
        Ok(()) => {}
        Err(error) if error == EINVAL && placement == Placement::Direct => {
            return Ok(Outcome::Misfit);
        }
        Err(_) => {
            stats::count(Counter::IoErrors);
            return Ok(Outcome::Failed);
        }
    }
    let scratch = plan.deliveries.scratch();
    let wrong = match &plan.fetches.expected {
        Some(expected) => {
            let helpers = &resources.helpers;
            verify::mismatches_with_help(helpers, expected, &plan.fetches, pages, scratch)
        }
        None => 0,
    };
    if wrong > 0 {
        return Ok(match placement {
            Placement::Direct => Outcome::Mismatch,
            Placement::Private => Outcome::Failed,
        });
    }
    if !plan.is_current() {
        return Ok(Outcome::Changed);
    }
    if !plan.deliveries.is_empty() {
        plan.deliveries
            .after(resources, &mut plan.fetches, plan.range.block, pages)?;
    }
    Ok(Outcome::Right)
}
