# frozen_string_literal: true

require 'tmpdir'

# Runs the tasks as Bolt does, with the real program, a hub and an agent.
RSpec.describe 'the tasks' do
  tasks = File.expand_path('../../tasks', __dir__)

  before(:all) do
    @directory = Dir.mktmpdir('trigger-spec')
    @fleet = RealFleet.new(@directory)
    FileUtils.mkdir(File.join(@directory, 'bin'))
    FileUtils.ln_s(RealProgram.path, File.join(@directory, 'bin/trigger'))
  end

  after(:all) do
    @fleet&.stop
    FileUtils.rm_rf(@directory)
  end

  # Runs a task with parameters, of which Bolt gives each in a variable and those that are no string as JSON.
  define_method(:run) do |task, parameters, path: "#{@directory}/bin:/usr/bin:/bin"|
    metadata = JSON.parse(File.read(File.join(tasks, "#{task}.json")))
    expect(metadata['parameters'].keys).to include(*parameters.keys.map(&:to_s))
    variables = parameters.to_h { |name, value| ["PT_#{name}", value.is_a?(String) ? value : value.to_json] }
    environment = { 'PATH' => path, 'PT__task' => "trigger::#{task}", 'TRIGGER_CONFIG' => @fleet.config, 'HOME' => @directory }
    output, status = Open3.capture2(environment.merge(variables), File.join(tasks, metadata['implementations'].first['name']),
                                    unsetenv_others: true)
    [JSON.parse(output), status.exitstatus]
  end

  it 'fire an event, whatever it is called' do
    name = %q(it's "new" $(id) -x)
    fired, code = run('fire', { trigger: name, hosts: %w[LB01.example.com lb02.example.com], groups: %w[web db], tags: ['a::b'],
                                noop: true, environment: 'test', expires_in: '1h' })
    expect(fired).to include('trigger' => name, 'state' => 'committed', 'groups' => %w[db web])
    expect(fired['targets'].map { |target| target['certname'] }).to eq %w[lb01.example.com lb02.example.com]
    expect(code).to eq 0
    status, code = run('status', { event: fired['event_id'] })
    expect(status).to include('noop' => true, 'environment' => 'test', 'tags' => ['a::b'], 'expires_in_seconds' => 3600)
    expect(code).to eq 0
    latest, code = run('status', {})
    expect(latest['events'].map { |event| event['event_id'] }).to include(fired['event_id'])
    expect(code).to eq 0
  end

  it 'fire at groups alone' do
    fired, code = run('fire', { trigger: 't', groups: ['web'] })
    expect([fired['groups'], fired['targets'], code]).to eq [['web'], [], 0]
  end

  it 'wait for the outcome of every node' do
    event, code = run('run', { trigger: 't', hosts: [RealFleet::CERTNAME], timeout: '10m' })
    expect(event['targets'].first).to include('certname' => RealFleet::CERTNAME, 'state' => 'done')
    expect(code).to eq 0
  end

  it 'fail where a node does not end in time, with what is known' do
    event, code = run('run', { trigger: 't', hosts: ['gone.example.com'], timeout: '1s' })
    expect(event).to include('timed_out' => true, '_error' => include('kind' => 'trigger/not-done'))
    expect(code).to eq 1
  end

  it 'fail with the sentence of the program' do
    answer, code = run('fire', { trigger: 't', hosts: ['a b'] })
    expect(answer['_error']).to include('kind' => 'trigger/error', 'msg' => include("'a b' is not a certname"))
    expect(code).not_to eq 0
    answer, code = run('status', { event: '019356b0-7c4a-7000-8000-000000000001' })
    expect(answer['_error']).to include('kind' => 'trigger/error')
    expect(code).not_to eq 0
  end

  it 'say where the program is missing' do
    %w[fire status].each do |task|
      answer, code = run(task, {}, path: '/nonexistent')
      # A machine that has the package has the program after all.
      expect([answer['_error']['kind'], code]).to eq ['trigger/error', 1] unless File.exist?('/usr/bin/trigger')
    end
  end

  Dir.glob("#{tasks}/*.json").each do |file|
    it "describe themselves: #{File.basename(file)}" do
      metadata = JSON.parse(File.read(file))
      expect(metadata['description']).not_to be_empty
      types = metadata['parameters'].each_value.map { |parameter| parameter.fetch('type') }
      expect { types.each { |type| Puppet::Pops::Types::TypeParser.singleton.parse(type) } }.not_to raise_error
      script = File.join(tasks, metadata['implementations'].first['name'])
      expect(metadata['parameters'].keys.reject { |name| File.read(script).include?("$PT_#{name}") }).to eq []
      expect(File).to be_executable(script)
    end
  end
end
