# @summary Where PuppetDB is, such as `https://puppetdb.example.com:8081`
type Trigger::Url::Puppetdb = Pattern[/\Ahttps:\/\/[A-Za-z0-9._:\[\]-]+(\/[A-Za-z0-9._~\/-]*)?\z/]
