# @summary A rule of a node's policy: the events that it is for, and what it allows them
type Trigger::Accept = Variant[
  Struct[{
    Optional['trigger']     => Trigger::Patterns,
    Optional['from']        => Trigger::Patterns,
    Optional['extensions']  => Trigger::Extensions,
    Optional['noop']        => Enum['only'],
    Optional['tags']        => Trigger::Patterns,
    Optional['environment'] => Trigger::Patterns,
  }],
  Struct[{
    Optional['trigger']    => Trigger::Patterns,
    Optional['from']       => Trigger::Patterns,
    Optional['extensions'] => Trigger::Extensions,
    'deny'                 => Boolean[true],
  }],
]
