# @summary The name of a group of nodes
type Trigger::Group = Pattern[/\A[a-z0-9_][a-z0-9._-]{0,254}\z/]
