# frozen_string_literal: true

RSpec.describe 'trigger::toml' do
  it { is_expected.to run.with_params('a b').and_return('"a b"') }
  it { is_expected.to run.with_params('').and_return('""') }
  it { is_expected.to run.with_params('C:\\x "y"').and_return('"C:\\\\x \\"y\\""') }
  it { is_expected.to run.with_params('größer $x ${y} \'z\'').and_return('"größer $x ${y} \'z\'"') }
  it { is_expected.to run.with_params(['a', 'b"']).and_return('["a", "b\\""]') }
  it { is_expected.to run.with_params([]).and_return('[]') }
  it { is_expected.to run.with_params({ 'a.b' => ['x'], 'c' => { 'd' => 1 } }).and_return('{ "a.b" = ["x"], "c" = { "d" = 1 } }') }
  it { is_expected.to run.with_params(7).and_return('7') }
  it { is_expected.to run.with_params(false).and_return('false') }
  it { is_expected.to run.with_params(1.5).and_raise_error(ArgumentError) }
end

RSpec.describe 'trigger::toml_lines' do
  it { is_expected.to run.with_params({ 'a' => 'x', 'b' => nil, 'c' => false }).and_return("a = \"x\"\nc = false\n") }
  it { is_expected.to run.with_params({}).and_return('') }
end
