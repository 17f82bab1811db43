# @summary How the program comes to a node: as a package, as a file that Puppet copies, or by other means
type Trigger::Install = Enum['package', 'file', 'none']
