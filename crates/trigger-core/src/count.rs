//! Numbers of things in sentences.

/// `1 node`, `2 nodes`, `2 deliveries`.
pub fn count(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_agrees_with_its_number() {
        assert_eq!([count(0, "hop"), count(1, "hop"), count(2, "hop")], ["0 hops", "1 hop", "2 hops"]);
        assert_eq!([count(1, "delivery"), count(3, "delivery")], ["1 delivery", "3 deliveries"]);
    }
}
