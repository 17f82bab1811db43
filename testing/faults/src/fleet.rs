//! The nodes of the fleet: twenty of them, some in groups. The trial and the runs share this definition.

/// The number of nodes that have an agent.
pub(crate) const NODES: usize = 20;
/// The nodes that connect to the backend directly and not through the trial's proxy, so that they see its ports
/// refuse connections.
pub(crate) const DIRECT: std::ops::Range<usize> = 16..NODES;

/// Each group with its members.
const GROUPS: [(&str, std::ops::Range<usize>); 3] = [("web", 0..5), ("db", 5..8), ("edge", 14..18)];

/// Returns a node's name.
pub(crate) fn certname(index: usize) -> String {
    format!("n{:02}", index + 1)
}

/// Returns the groups that a node belongs to.
pub(crate) fn groups_of(index: usize) -> Vec<&'static str> {
    GROUPS.iter().filter(|(_, members)| members.contains(&index)).map(|(name, _)| *name).collect()
}

/// The randomly chosen targets of a fire: mostly a few nodes, sometimes a group.
pub(crate) struct Targets {
    /// Named nodes.
    pub(crate) hosts: Vec<String>,
    /// Named groups.
    pub(crate) groups: Vec<String>,
}

impl Targets {
    /// Draws the targets.
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        if random.u8(..100) < 12 {
            let (group, _) = GROUPS[random.usize(..GROUPS.len())];
            return Self { hosts: Vec::new(), groups: vec![group.to_owned()] };
        }
        let hosts: std::collections::BTreeSet<usize> =
            (0..=random.usize(..3)).map(|_| random.usize(..NODES)).collect();
        Self { hosts: hosts.into_iter().map(certname).collect(), groups: Vec::new() }
    }

    /// Returns the arguments of `trigger fire` that name them.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let hosts = self.hosts.iter().flat_map(|host| ["--host".to_owned(), host.clone()]);
        let groups = self.groups.iter().flat_map(|group| ["--group".to_owned(), group.clone()]);
        hosts.chain(groups).collect()
    }
}
