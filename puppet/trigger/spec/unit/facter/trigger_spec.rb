# frozen_string_literal: true

require 'facter'

RSpec.describe 'the fact trigger' do
  include Scratch

  around do |example|
    kept = ENV.to_h
    example.run
  ensure
    ENV.replace(kept)
  end

  # Returns the fact where only this program is to be found.
  def fact(program)
    directory = File.join(scratch, 'bin')
    FileUtils.mkdir_p(directory)
    FileUtils.ln_s(program, File.join(directory, 'trigger'))
    ENV['PATH'] = "#{directory}:/usr/bin:/bin"
    Facter.clear
    load File.expand_path('../../../lib/facter/trigger.rb', __dir__)
    Facter.value(:trigger)
  end

  def script(text)
    path = File.join(scratch, 'script')
    File.write(path, "#!/bin/sh\n#{text}\n")
    File.chmod(0o755, path)
    path
  end

  def configure(text)
    ENV['TRIGGER_CONFIG'] = File.join(scratch, 'trigger.toml')
    File.write(ENV.fetch('TRIGGER_CONFIG'), "state_dir = '#{scratch}/state'\n#{text}")
  end

  it 'is what the real program says of the node, and leaves no trace on it' do
    configure("backend = 'hub+http://127.0.0.1:1'\ngroups = ['web']\ncertname = 'Web01.example.com'\n")
    shown = fact(RealProgram.path)
    expect(shown).to include(
      'certname' => 'web01.example.com', 'backend' => 'hub+http://127.0.0.1:1', 'groups' => ['web'],
      'prefix' => '/puppet_trigger/events', 'agent' => nil, 'last_run' => nil
    )
    expect(shown['version']).to match(/\A\d+\.\d+\.\d+/)
    expect(shown).not_to include('warnings')
    expect(File).not_to exist(File.join(scratch, 'state'))
  end

  it 'is absent, without a word, where there is nothing to say' do
    configure("backend = 7\n")
    expect { expect(fact(RealProgram.path)).to be_nil }.not_to output.to_stderr_from_any_process
  end

  ['exit 1', 'echo {', 'echo []', 'kill -9 $$', ''].each do |program|
    it "is absent with a program that does #{program.inspect}" do
      expect { expect(fact(script("#{program}\necho x >&2"))).to be_nil }.not_to output.to_stderr_from_any_process
    end
  end

  it 'is absent without the program' do
    expect(fact('/nonexistent')).to be_nil unless File.exist?('/usr/bin/trigger')
  end
end
