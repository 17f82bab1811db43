# @summary A pattern of names on one line: `*` stands for any text, `?` for one character
type Trigger::Pattern = Pattern[/\A[^[:cntrl:]]+\z/]
