# frozen_string_literal: true

require 'json'
require 'open3'
require 'tmpdir'

# The program of this repository: `TRIGGER_BIN` if it is set, otherwise a debug build that is up to date.
module RealProgram
  ROOT = File.expand_path('../../../..', __dir__)

  def self.path
    @path ||= ENV.fetch('TRIGGER_BIN') { build }
  end

  def self.build
    output, problems, status = Open3.capture3(
      'cargo', 'build', '--quiet', '--package', 'trigger', '--message-format', 'json', chdir: ROOT
    )
    raise "cargo cannot build trigger:\n#{problems}" unless status.success?

    output.lines.map { |line| JSON.parse(line)['executable'] }.compact.last
  end

  # Returns what the program objects to in a configuration: nothing, if it reads each setting.
  def self.objection(config)
    Dir.mktmpdir('trigger-spec') do |directory|
      path = File.join(directory, 'trigger.toml')
      File.write(path, config)
      output, status = Open3.capture2e(
        self.path, 'policy', 'test', '--config', path, '--from', 'web01.example.com', '--trigger', 'refresh'
      )
      # 0 and 1 are verdicts of the policy.
      status.exitstatus < 2 ? '' : output
    end
  end
end
