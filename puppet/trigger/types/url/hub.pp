# @summary A hub, such as `hub+http://127.0.0.1:8145`
type Trigger::Url::Hub = Pattern[/\Ahub\+https?:\/\/[^[:space:][:cntrl:]]+\z/]
