# frozen_string_literal: true

require 'fileutils'
require 'json'

# A hub and the agent of one node, as they are shipped, in a directory of their own.
class RealFleet
  CERTNAME = 'lb01.example.com'
  # How long something may take on a loaded machine.
  PATIENCE = 120

  def initialize(directory)
    @directory = directory
    @processes = []
    hub = start('hub', 'hub', '--config', '/dev/null', '--listen', '127.0.0.1:0', '--data-dir', path('hub'))
    address = wait_for('the hub') { File.read(hub)[/ready.*?(127\.0\.0\.1:\d+)/, 1] }
    File.write(config, <<~TOML)
      backend = "hub+http://#{address}"
      certname = "#{CERTNAME}"
      state_dir = "#{path('state')}"
      run_cmd = "/bin/true"
      require_signature = false
    TOML
    start('agent', 'agent', '--config', config)
    wait_for('the agent') { document('facts')&.dig('agent', 'connected') }
  end

  def config
    path('trigger.toml')
  end

  def path(name)
    File.join(@directory, name)
  end

  # What a command of the program prints as JSON, or nil.
  def document(*words)
    output, status = Open3.capture2(RealProgram.path, *words, '--config', config, '--output', 'json')
    JSON.parse(output) if status.success?
  end

  def stop
    @processes.each { |pid| Process.kill('TERM', pid) }.each { |pid| Process.wait(pid) }
  end

  private

  # Starts the program and gives the file of its log.
  def start(name, *words)
    log = path("#{name}.log")
    @processes << Process.spawn({ 'NO_COLOR' => '1' }, RealProgram.path, *words, %i[out err] => log)
    log
  end

  def wait_for(what)
    (PATIENCE * 20).times do
      found = yield
      return found if found

      sleep 0.05
    end
    raise "#{what} does not start: #{Dir.glob(path('*.log')).map { |log| File.read(log) }.join("\n")}"
  end
end
