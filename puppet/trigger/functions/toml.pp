# @summary A string, an integer, a Boolean, or an array of strings, as a value of a TOML file
# @api private
#
# Control characters are the caller's to refuse: the types of this module's parameters do.
#
# @param value What the file shall hold
# @return The value; a string in quotes, with backslashes and quotes escaped
function trigger::toml(Variant[String, Integer, Boolean, Array[String]] $value) >> String {
  $value ? {
    String  => "\"${regsubst($value, '[\\\\"]', '\\\\\\0', 'G')}\"",
    Integer => String($value),
    Boolean => String($value),
    default => "[${$value.map |$element| { trigger::toml($element) }.join(', ')}]",
  }
}
