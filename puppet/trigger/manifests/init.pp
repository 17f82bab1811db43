# @summary The program `trigger` on this node
#
# Included by `trigger::agent` and `trigger::hub`, which may share a node. Where the program comes from is
# set here, in Hiera or by declaring this class before them.
#
# @param package_name
#   The package to install; unset, the program is expected to be there by other means
# @param package_ensure
#   The state of the package, in the words of the type `package`
# @param binary_path
#   Where the program is; the services start it from there, and `trigger` resources look for it there first
#
# @example Install a package from a repository that the node already knows (Hiera)
#   trigger::package_name: 'trigger'
class trigger (
  Optional[String[1]] $package_name = undef,
  String[1] $package_ensure = 'installed',
  Trigger::Path $binary_path = '/usr/bin/trigger',
) {
  if $package_name {
    package { $package_name:
      ensure => $package_ensure,
    }
  }
}
