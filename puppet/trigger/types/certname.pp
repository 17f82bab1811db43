# @summary A node's Puppet identity, as the certificate carries it; capitals stand for lower-case letters
type Trigger::Certname = Pattern[/\A[A-Za-z0-9_][A-Za-z0-9._-]{0,254}\z/]
