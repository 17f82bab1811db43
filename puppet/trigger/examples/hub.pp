# The Puppet server of a fleet: the hub, with the revocation lists of its CA, and an operator's machine.
class { 'trigger::hub':
  crl_url   => 'https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca',
  operators => ['admin01.example.com'],
}
