# @summary The Puppet server's machine: the hub beside it
#
class profile::server {
  include profile::node

  class { 'trigger::hub':
    crl_url => 'https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca',
  }
}
