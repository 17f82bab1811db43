//! `trigger`: makes a notify on one node run Puppet on others.

#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "the command line that uses it comes next"))]
mod hub;

fn main() {}
