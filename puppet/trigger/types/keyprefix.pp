# @summary Where in a backend the keys are kept, such as `/puppet_trigger/events`
type Trigger::Keyprefix = Pattern[/\A(?=.{2,255}\z)(\/[A-Za-z0-9._-]+)+\z/]
