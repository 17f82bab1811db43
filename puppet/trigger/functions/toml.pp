# @summary A string, an integer, a Boolean, an array or a hash of these, as a value of a TOML file
# @api private
#
# Control characters are the caller's to refuse: the types of this module's parameters do.
#
# @param value What the file shall hold
# @return The value; a string in quotes, with backslashes and quotes escaped
function trigger::toml(Variant[String, Integer, Boolean, Array, Hash[String[1], Any]] $value) >> String {
  $value ? {
    String  => "\"${regsubst($value, '[\\\\"]', '\\\\\\0', 'G')}\"",
    Array   => "[${$value.map |$element| { trigger::toml($element) }.join(', ')}]",
    Hash    => "{ ${$value.map |$key, $element| { "${trigger::toml($key)} = ${trigger::toml($element)}" }.join(', ')} }",
    default => String($value),
  }
}
