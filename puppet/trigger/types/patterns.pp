# @summary One pattern of names, or several of which one has to match
type Trigger::Patterns = Variant[Trigger::Pattern, Array[Trigger::Pattern, 1]]
