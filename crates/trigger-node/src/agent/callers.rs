//! What another process of this node may ask the agent for.
//!
//! The kernel says which user and which group a caller had when it connected. Its further groups are those that the system's
//! database has for this user, as at a login: `/proc` is not asked, because a process id may belong to another process by then.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// Who may ask for what.
#[derive(Debug, Clone)]
pub(super) struct Callers {
    /// The agent's own user.
    own: u32,
    /// The groups whose members may fire.
    groups: Vec<String>,
}

/// What a caller may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything: it is root or the agent's own user.
    All,
    /// To fire an event of this node and to look at the queue: its user is a member of this group.
    Member(String),
    /// Nothing.
    Nothing,
}

impl Callers {
    pub(super) fn new(groups: Vec<String>) -> Self {
        Self { own: Uid::effective().as_raw(), groups }
    }

    /// The groups whose members may fire.
    pub(super) fn groups(&self) -> &[String] {
        &self.groups
    }

    /// Whether a user may ask for everything.
    pub(super) fn include(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own
    }

    /// What the user of a caller may ask for. May wait for the system's database, which may be on another machine.
    pub(super) fn rights(&self, uid: u32, gid: u32) -> Rights {
        if self.include(uid) {
            return Rights::All;
        }
        let of_user = groups_of(uid);
        let is_member = |name: &&String| match Group::from_name(name) {
            Ok(Some(group)) => group.gid.as_raw() == gid || of_user.contains(&group.gid),
            Ok(None) | Err(_) => false,
        };
        self.groups.iter().find(is_member).map_or(Rights::Nothing, |name| Rights::Member(name.clone()))
    }
}

/// The groups of a user in the system's database; none for a user whom it does not know.
fn groups_of(uid: u32) -> Vec<Gid> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return Vec::new() };
    let Ok(name) = CString::new(user.name) else { return Vec::new() };
    getgrouplist(&name, user.gid).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(gid: u32) -> Option<String> {
        Group::from_gid(Gid::from_raw(gid)).unwrap().map(|group| group.name)
    }

    #[test]
    fn root_and_the_agents_own_user_may_everything() {
        let callers = Callers { own: 12_345, groups: Vec::new() };
        assert_eq!(callers.rights(0, 0), Rights::All);
        assert_eq!(callers.rights(12_345, 12_345), Rights::All);
        assert_eq!(callers.rights(12_346, 0), Rights::Nothing, "the group root is no user");
    }

    #[test]
    fn members_of_a_group_may_fire() {
        let [daemon, root] = [1, 0].map(|gid| group(gid).expect("a group of every system"));
        let callers = Callers { own: 0, groups: vec!["no such group".to_owned(), daemon.clone()] };
        // The user 1 has the group 1 in the database; a user that is not in it has the group of its process only.
        assert_eq!(callers.rights(1, 65_000), Rights::Member(daemon.clone()));
        assert_eq!(callers.rights(54_321, 1), Rights::Member(daemon));
        assert_eq!(callers.rights(54_321, 65_000), Rights::Nothing);
        assert_eq!(Callers { own: 0, groups: vec![root] }.rights(1, 65_000), Rights::Nothing);
    }
}
