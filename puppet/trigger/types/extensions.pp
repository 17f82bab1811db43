# @summary Trusted extensions of a certificate, by Puppet's name or by object identifier, with the values that they must have
type Trigger::Extensions = Hash[Pattern[/\A(pp_[a-z_]+|[0-9]+(\.[0-9]+)+)\z/], Trigger::Patterns]
