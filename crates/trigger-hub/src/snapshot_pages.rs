//! Which moment each page of a snapshot shows, so that no watcher is sent a change that the page of its key shows already.

use trigger_core::identity::Revision;
use trigger_store::hub_protocol::Position;
use trigger_store::store::KeyRange;

/// The pages of one snapshot, in their order.
#[derive(Debug, Default)]
pub(crate) struct SnapshotPages(Vec<SnapshotPage>);

#[derive(Debug)]
struct SnapshotPage {
    /// The last key of the page; absent for the last page.
    end: Option<Position>,
    /// The page shows every commit up to this one.
    revision: Revision,
}

impl SnapshotPages {
    /// Adds the next page. A page of the same moment as the one before is one with it.
    pub(crate) fn add(&mut self, end: Option<Position>, revision: Revision) {
        match self.0.last_mut() {
            Some(last) if last.revision == revision => last.end = end,
            _ => self.0.push(SnapshotPage { end, revision }),
        }
    }

    /// Whether the page of a key in `ranges` shows its change at `revision`.
    pub(crate) fn shows(&self, ranges: &[KeyRange], key: &str, revision: Revision) -> bool {
        if self.0.last().is_none_or(|newest| revision > newest.revision) {
            return false;
        }
        // A key that several ranges have is in the page of the first.
        let range = ranges.iter().position(|range| range.contains(key)).unwrap_or(ranges.len());
        let holds = |page: &&SnapshotPage| {
            page.end.as_ref().is_none_or(|end| (range, key) <= (end.range, end.after.as_str()))
        };
        self.0.iter().find(holds).is_some_and(|page| revision <= page.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_by_the_page_of_its_key() {
        let ranges = ["/a/", "/b/"].map(|prefix| KeyRange::Prefix(prefix.to_owned()));
        let position = |range, after: &str| Some(Position { range, after: after.to_owned() });
        let mut pages = SnapshotPages::default();
        pages.add(position(0, "/a/3"), Revision(10));
        pages.add(position(0, "/a/5"), Revision(10));
        pages.add(position(1, "/b/2"), Revision(12));
        pages.add(None, Revision(15));
        for (key, latest) in [("/a/1", 10), ("/a/5", 10), ("/a/6", 12), ("/b/2", 12), ("/b/3", 15)] {
            let shown: Vec<u64> =
                (9..20).filter(|revision| pages.shows(&ranges, key, Revision(*revision))).collect();
            assert_eq!(shown.last(), Some(&latest), "{key}");
        }
        assert!(!SnapshotPages::default().shows(&ranges, "/a/1", Revision(1)));
    }
}
