# frozen_string_literal: true

require 'rspec-puppet'
require 'json'
require 'socket'
require_relative 'support/fake_program'
require_relative 'support/real_fleet'
require_relative 'support/real_program'
require_relative 'support/scratch'

RSpec.configure do |config|
  config.mock_with :rspec
  config.disable_monkey_patching!
  # A spec without an expectation is a mistake, and so is a filter that matches no spec.
  config.fail_if_no_examples = true

  # The directory that holds this module is the module path: no fixtures, no links.
  config.module_path = File.expand_path('../..', __dir__)
  config.setup_fixtures = false
  config.strict_variables = true
  config.default_facts = { 'os' => { 'family' => 'Debian', 'name' => 'Debian' } }
end

$LOAD_PATH.unshift(File.expand_path('../lib', __dir__))
