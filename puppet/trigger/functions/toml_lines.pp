# @summary The settings of a table of a TOML file, a line each
# @api private
#
# @param settings The keys with their values; what is undef is left to the program
# @return The lines
function trigger::toml_lines(Hash[String[1], Any] $settings) >> String {
  $given = $settings.filter |$_key, $value| { $value =~ NotUndef }
  $given.map |$key, $value| { "${key} = ${trigger::toml($value)}\n" }.join
}
