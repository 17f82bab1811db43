# @summary The program `trigger` on this node, and the directory of its configuration
#
# Included by `trigger::agent` and `trigger::hub`, which may share a node. Where the program comes from is
# set here, in Hiera or by declaring this class before them.
#
# @param install
#   How the program comes to this node. `package`: from a repository that the node knows; the package brings the
#   systemd units, man pages and completions too. `file`: Puppet copies it from `source`. `none`: by other means
# @param package_name
#   The package to install
# @param package_ensure
#   The state of the package, in the words of the type `package`
# @param source
#   Where the program is copied from
# @param checksum
#   The SHA-256 of the program at `source`; a file with another one is not installed
# @param binary_path
#   Where the program is; the services start it from there, and `trigger` resources look for it there first
#
# @example Install a package from a repository that the node already knows (Hiera)
#   trigger::install: 'package'
#
# @example Copy the program from the Puppet server (Hiera)
#   trigger::install: 'file'
#   trigger::source: 'puppet:///modules/profile/trigger'
class trigger (
  Trigger::Install $install = 'none',
  String[1] $package_name = 'trigger',
  String[1] $package_ensure = 'installed',
  Optional[Trigger::Source] $source = undef,
  Optional[Pattern[/\A\h{64}\z/]] $checksum = undef,
  Trigger::Path $binary_path = '/usr/bin/trigger',
) {
  case $install {
    'package': {
      package { $package_name:
        ensure => $package_ensure,
      }
    }
    'file': {
      unless $source {
        fail("trigger: with install => 'file' it needs a source to copy the program from")
      }
      $checked = $checksum ? {
        undef   => {},
        default => { 'checksum' => 'sha256', 'checksum_value' => $checksum.downcase },
      }
      # A running program is replaced, not overwritten: Puppet renames the new file over it.
      file { $binary_path:
        ensure => file,
        owner  => 'root',
        group  => 'root',
        mode   => '0755',
        source => $source,
        backup => false,
        *      => $checked,
      }
    }
    default: {}
  }

  file { '/etc/trigger':
    ensure => directory,
    owner  => 'root',
    group  => 'root',
    mode   => '0755',
  }
}
