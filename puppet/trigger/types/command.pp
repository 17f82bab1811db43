# @summary A command with its arguments on one line; split into words, never given to a shell
type Trigger::Command = Pattern[/\A[^[:cntrl:]]*[^[:space:][:cntrl:]][^[:cntrl:]]*\z/]
