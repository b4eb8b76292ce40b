// SPDX-License-Identifier: GPL-2.0

//! What holds for any input.

mod cache;
mod few;
mod group;
mod mirror;
mod range;
mod segment;
mod stripe;
mod unstable;
mod vecs;

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

/// How all properties are tested. What has failed once is tried first from then on.
pub(crate) fn config() -> Config {
    Config {
        cases: number("CASES").unwrap_or(4000),
        rng_seed: RngSeed::Fixed(number("SEED").unwrap_or(1)),
        failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel(
            "regressions",
        ))),
        ..Config::default()
    }
}

/// The same, for what takes longer than a few sums.
pub(crate) fn slow() -> Config {
    let all = config();
    Config {
        cases: all.cases.div_ceil(4),
        ..all
    }
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let number = text.parse().ok();
    assert!(number.is_some(), "{name}={text} is no number");
    number
}
