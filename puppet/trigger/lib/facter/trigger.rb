# frozen_string_literal: true

require 'json'
require 'open3'

# What `trigger facts` says of this node: version, certname, backend, groups, agent, and the last run with its causes. It is
# absent where the program is missing or has nothing to say, such as with a configuration that has a mistake.
Facter.add(:trigger) do
  setcode do
    directories = ENV.fetch('PATH', '').split(File::PATH_SEPARATOR) + ['/usr/bin', '/usr/local/bin', '/opt/puppetlabs/bin']
    program = directories.map { |directory| File.join(directory, 'trigger') }.find { |path| File.executable?(path) }
    next unless program

    output, _problems, status = Open3.capture3(program, 'facts', '--output', 'json', stdin_data: '')
    facts = JSON.parse(output) if status.success?
    facts.reject { |name, _value| name == 'warnings' } if facts.is_a?(Hash)
  rescue StandardError => e
    Facter.debug("trigger: #{e.class}: #{e.message}")
    nil
  end
end
