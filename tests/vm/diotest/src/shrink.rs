// SPDX-License-Identifier: GPL-2.0

//! Makes a list that shows a failure shorter, as long as it still shows it: delta
//! debugging (Zeller and Hildebrandt, 2002), without its subsets.

use std::time::Instant;

/// The shortest list found until `deadline` that still `fails`. It is one from
/// which no element can be left out, if there was time enough.
pub fn shrink<T: Clone>(
    list: &[T],
    deadline: Instant,
    mut fails: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut list = list.to_vec();
    let mut size = list.len().div_ceil(2);
    while size > 0 {
        let (mut at, mut shorter) = (0, false);
        while at < list.len() {
            if Instant::now() >= deadline {
                return list;
            }
            let end = list.len().min(at + size);
            let rest = [&list[..at], &list[end..]].concat();
            if fails(&rest) {
                (list, shorter) = (rest, true);
            } else {
                at = end;
            }
        }
        // One more time, for what could not be left out before.
        if size > 1 || !shorter {
            size /= 2;
        }
    }
    list
}
