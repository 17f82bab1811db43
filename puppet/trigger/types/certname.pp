# @summary A node's Puppet identity, as the certificate carries it; also the form of a group's name
type Trigger::Certname = Pattern[/\A[a-z0-9_][a-z0-9._-]{0,254}\z/]
