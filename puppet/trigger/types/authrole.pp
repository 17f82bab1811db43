# @summary A value of the trusted extension `pp_auth_role`, which may hold several with commas between them
type Trigger::Authrole = Pattern[/\A[^[:cntrl:],]*[^[:space:][:cntrl:],][^[:cntrl:],]*\z/]
