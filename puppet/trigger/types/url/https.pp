# @summary An HTTPS URL, such as `https://puppet.example.com:8140/puppet-ca/v1/certificate_revocation_list/ca`
type Trigger::Url::Https = Pattern[/\Ahttps:\/\/[A-Za-z0-9._:\[\]-]+\/[A-Za-z0-9._~\/-]*\z/]
