# @summary Trusted extensions of a certificate, by Puppet's name or by object identifier, with the values that they must have
type Trigger::Extensions = Hash[Pattern[/\A(pp_[a-z_]+|1\.3\.6\.1\.4\.1\.34380\.1(\.[0-9]+)+)\z/], Trigger::Patterns]
