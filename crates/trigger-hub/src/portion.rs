//! Cuts the entries and changes for a watcher into portions of bounded size.

use std::iter::Peekable;

/// Returns the next items, together at most `max_bytes` of keys and values, but at least one if there is one.
pub(crate) fn portion<T>(
    items: &mut Peekable<impl Iterator<Item = T>>,
    max_bytes: usize,
    size: impl Fn(&T) -> usize,
) -> Vec<T> {
    let mut portion = Vec::new();
    let mut bytes = 0;
    while let Some(item) = items.next_if(|item| portion.is_empty() || bytes + size(item) <= max_bytes) {
        bytes += size(&item);
        portion.push(item);
    }
    portion
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_bounded_and_keep_the_order() {
        let check = |sizes: &[usize], expected: &[&[usize]]| {
            let mut items = sizes.iter().copied().peekable();
            let mut portions = Vec::new();
            while items.peek().is_some() {
                portions.push(portion(&mut items, 10, |size| *size));
            }
            assert_eq!(portions, expected, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[3, 7], &[&[3, 7]]);
        check(&[3, 8, 2], &[&[3], &[8, 2]]);
        check(&[50, 1], &[&[50], &[1]]);
    }
}
