# @summary The systemd unit of a service, and what this node changes in it
#
# A package brings the unit. Otherwise it is written here, with the same text.
#
# @api private
#
# @param settings
#   The text of the drop-in for the unit; unset, there is none
define trigger::unit (
  Optional[String[1]] $settings = undef,
) {
  $unit = "/etc/systemd/system/${name}.service"
  $settings_ensure = $settings ? { undef => 'absent', default => 'file' }
  $unit_ensure = $trigger::install ? { 'package' => 'absent', default => 'file' }

  # Puppet has systemd read changed units by itself when it manages their service.
  file {
    default:
      owner => 'root',
      group => 'root',
      mode  => '0644',
      ;
    $unit:
      ensure  => $unit_ensure,
      content => file("trigger/${name}.service"),
      ;
    "${unit}.d":
      ensure => directory,
      mode   => '0755',
      ;
    "${unit}.d/puppet.conf":
      ensure  => $settings_ensure,
      content => $settings,
      ;
  }
}
