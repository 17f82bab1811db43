# frozen_string_literal: true

# Runs the provider inside Puppet's own transaction, with a fake program in PATH.
RSpec.describe 'the providers of trigger' do
  include Scratch

  let(:program) { FakeProgram.new(File.join(scratch, 'bin')) }
  let(:logs) { [] }

  around do |example|
    path = ENV.fetch('PATH')
    example.run
  ensure
    ENV['PATH'] = path
  end

  before do
    Puppet[:certname] = 'web01.example.com'
    Puppet[:vardir] = scratch
    FileUtils.mkdir(Puppet[:statedir])
  end

  # Applies a catalog in which something that changes notifies a trigger.
  def notify_trigger(name = 'refresh', **parameters)
    program
    ENV['PATH'] = "#{scratch}/bin:/usr/bin:/bin"
    Puppet::Util::Log.newdestination(Puppet::Test::LogCollector.new(logs))
    trigger = Puppet::Type.type(:trigger).new(name: name, **parameters)
    change = Puppet::Type.type(:notify).new(name: 'a change', notify: trigger)
    catalog = Puppet::Resource::Catalog.new('web01.example.com')
    catalog.add_resource(change, trigger)
    @failed = catalog.apply.report.resource_statuses[trigger.ref].failed_to_restart
  end

  def logged(level)
    logs.select { |log| log.level == level && log.source =~ /Trigger/ }.map(&:message)
  end

  def lines(level)
    logs.select { |log| log.level == level }.map(&:message)
  end

  def error
    logged(:err).first
  end

  def argv(*middle, name: 'refresh')
    ['fire', '--output', 'json', '--certname', 'web01.example.com', *middle, '--', name]
  end

  describe 'the call' do
    it 'is the shortest one for a trigger with hosts only' do
      notify_trigger(hosts: ['lb02.example.com', 'lb01.example.com', 'lb02.example.com'])
      expect(program.calls).to eq [
        [argv('--hosts-from', '-', '--ttl', '5'), "lb02.example.com\nlb01.example.com\n"],
      ]
      expect(@failed).to be_falsey
    end

    it 'carries everything a trigger can say' do
      notify_trigger(hosts: 'lb01', groups: %w[web db], ttl: 3, loops: 'allow', keyttl: 90, keyprefix: '/p/q',
                     provider: :etcd)
      expect(program.calls).to eq [
        [argv('--hosts-from', '-', '--group', 'web', '--group', 'db', '--ttl', '3', '--loops', 'allow',
              '--expires-in', '90s', '--prefix', '/p/q', '--backend', 'etcd'), "lb01\n"],
      ]
    end

    it 'passes a query on' do
      query = %q(resources[certname] { type = "Class" and title = 'Haproxy' })
      notify_trigger(query: query)
      expect(program.calls).to eq [[argv('--query', query, '--ttl', '5'), '']]
    end

    describe 'with a catalog that is stored in PuppetDB' do
      let(:uuid) { '0c23df3f-7ac7-4a51-bd58-e4a91e7a3f96' }

      before { allow_any_instance_of(Puppet::Resource::Catalog).to receive(:catalog_uuid).and_return(uuid) }

      it 'says which catalog that is' do
        allow(Puppet.run_mode).to receive(:agent?).and_return(true)
        notify_trigger(hosts: 'a')
        expect(program.calls.first.first.each_cons(2)).to include(['--catalog', uuid])
      end

      it 'says it for an apply that stores its catalogs' do
        Puppet[:storeconfigs] = true
        notify_trigger(hosts: 'a')
        expect(program.calls.first.first.each_cons(2)).to include(['--catalog', uuid])
      end

      it 'is silent where nothing stores it' do
        notify_trigger(hosts: 'a')
        expect(program.calls.first.first).not_to include('--catalog')
      end
    end

    it 'says which resource fires, and where it is declared as far as Puppet knows' do
      notify_trigger(hosts: 'a')
      expect(program.declarations).to eq [['--resource', '/Trigger[refresh]']]
    end

    %i[configured hub etcd dummy].each do |provider|
      it "allows loops through the provider #{provider} only where the resource does" do
        notify_trigger(hosts: 'a', provider: provider)
        notify_trigger(hosts: 'a', provider: provider, loops: 'avoid')
        notify_trigger(hosts: 'a', provider: provider, loops: :allow)
        given = program.calls.map { |call| call.first[call.first.index('--ttl') + 2, 2] }
        expect(given.map { |words| words == %w[--loops allow] }).to eq [false, false, true]
      end
    end

    it 'asks for no hosts on standard input when there are only groups' do
      notify_trigger(groups: 'web', provider: :hub)
      expect(program.calls).to eq [[argv('--group', 'web', '--ttl', '5', '--backend', 'hub'), '']]
    end

    it 'names the dummy only for the provider dummy' do
      notify_trigger(hosts: 'a', provider: :dummy)
      expect(program.calls).to eq [[argv('--hosts-from', '-', '--ttl', '5', '--backend', 'dummy:'), "a\n"]]
    end

    ["it's \"quoted\"", '$(touch /tmp/x) `id` ; | & > *', 'größer – 重い', '-rf', '--help', 'a/b\\c', "\u00a0x "].each do |name|
      it "keeps the name #{name.inspect} as it is, even in the locale C" do
        locale = ENV.to_hash.slice('LC_ALL', 'LANG')
        ENV.update('LC_ALL' => 'C', 'LANG' => 'C')
        notify_trigger(name, hosts: 'a')
        expect(program.calls).to eq [[argv('--hosts-from', '-', '--ttl', '5', name: name), "a\n"]]
      ensure
        %w[LC_ALL LANG].each { |key| ENV[key] = locale[key] }
      end
    end

    it 'takes more hosts than a command line or a pipe holds' do
      hosts = (1..20_000).map { |n| format('node%05d.some-long-domain.example.com', n) }
      notify_trigger(hosts: hosts)
      expect(program.calls.first.last).to eq(hosts.map { |host| "#{host}\n" }.join)
      expect(logged(:notice)).to include(/at 20000 nodes\z/)
    end
  end

  describe 'the answer' do
    def reply(**fields)
      JSON.generate({ event_id: '0193-x', trigger: 'refresh', targets: [{ certname: 'a', state: 'pending' }],
                      state: 'committed', revision: 1, warnings: [] }.merge(fields))
    end

    it 'is a warning, and data to fire again for, where a query finds no node' do
      program.answer(stdout: JSON.generate({ event_id: nil, trigger: 'refresh', targets: [], state: 'no_targets', revision: nil,
                                             warnings: ['PuppetDB knows no active node for the query'] }))
      notify_trigger(query: 'nodes[certname] { }', on_change: 'x')
      expect(logged(:warning)).to eq ['PuppetDB knows no active node for the query']
      expect(logged(:notice).grep(/Event|Fired/)).to eq []
      expect(@failed).to be_falsey
    end

    it 'is one notice that says how many nodes' do
      notify_trigger(hosts: %w[a b c])
      expect(logged(:notice)).to eq ['Fired 01935000-0000-7000-8000-000000000001 at 3 nodes',
                                     "Triggered 'refresh' from 1 event"]
      expect(lines(:warning) + lines(:err)).to eq []
    end

    it 'speaks of one node in the singular' do
      program.answer(stdout: reply)
      notify_trigger(hosts: 'a')
      expect(logged(:notice)).to include('Fired 0193-x at 1 node')
    end

    it 'names groups, whose members it does not know, beside the nodes' do
      program.answer(stdout: reply(targets: [], groups: %w[lb]))
      notify_trigger(groups: 'lb')
      expect(logged(:notice)).to include('Fired 0193-x at 1 group')
      program.answer(stdout: reply(groups: %w[lb web]))
      notify_trigger(hosts: 'a', groups: %w[lb web])
      expect(logged(:notice)).to include('Fired 0193-x at 1 node and 2 groups')
    end

    it 'counts the nodes that run, not those that the loop guard suppressed' do
      program.answer(stdout: reply(targets: %w[pending suppressed pending].map { |state| { certname: 'x', state: state } }))
      notify_trigger(hosts: 'a')
      expect(logged(:notice)).to include('Fired 0193-x at 2 nodes')
    end

    %w[spooled suppressed].each do |state|
      it "is no failure when the event is #{state}, but says so" do
        targets = [{ certname: 'a', state: state }]
        program.answer(stdout: reply(state: state, targets: targets, warnings: ['one sentence', 'größer']))
        notify_trigger(hosts: 'a')
        expect(@failed).to be_falsey
        expect(logged(:warning)).to eq ['one sentence', 'größer']
        expect(logged(:notice)).to include("Event 0193-x for 1 node is #{state}")
        expect(logged(:notice).grep(/Fired/)).to eq []
      end
    end

    it 'names the groups too of an event that is suppressed as a whole' do
      suppressed = %w[lb web].map { |group| { group: group, reason: 'loop' } }
      program.answer(stdout: reply(state: 'suppressed', targets: [], groups: [], suppressed_groups: suppressed))
      notify_trigger(groups: %w[lb web])
      expect(logged(:notice)).to include('Event 0193-x for 2 groups is suppressed')
    end

    it 'does not count the suppressed groups of an event that goes on' do
      program.answer(stdout: reply(groups: [], suppressed_groups: [{ group: 'lb', reason: 'loop' }]))
      notify_trigger(hosts: 'a', groups: 'lb')
      expect(logged(:notice)).to include('Fired 0193-x at 1 node')
    end

    it 'fails with the sentence of the program, after its warnings' do
      program.answer(stdout: JSON.generate(error: "'x' is no backend", warnings: ['beware']), code: 3)
      notify_trigger(hosts: 'a')
      expect(@failed).to be true
      expect(logged(:warning)).to eq ['beware']
      expect(error).to eq "Failed to call refresh: Cannot fire: 'x' is no backend"
    end

    it 'shows text from outside as text, on one line' do
      forged = "why\e[2J\u009b8m\u202e\r\nError: forged"
      program.answer(stdout: JSON.generate(error: forged, warnings: [forged]), code: 1)
      notify_trigger(hosts: 'a')
      shown = 'why\u{1b}[2J\u{9b}8m\u{202e} Error: forged'
      expect(logged(:warning)).to eq [shown]
      expect(error).to eq "Failed to call refresh: Cannot fire: #{shown}"
    end

    it 'fails when the program does, even if it says it fired' do
      program.answer(stdout: reply, code: 1)
      notify_trigger(hosts: 'a')
      expect(@failed).to be true
      expect(error).to eq 'Failed to call refresh: Cannot fire: exit code 1'
    end

    {
      'nothing' => [{ stdout: '', code: 101 }, 'exit code 101 and without an answer; it said nothing'],
      'nothing, but a success' => [{ stdout: '', code: 0 }, 'exit code 0 and without an answer; it said nothing'],
      'a panic on standard error' =>
        [{ stdout: '', stderr: "panicked at größer\n", code: 101 }, 'exit code 101 and without an answer; it said: panicked at größer'],
      'something that is not JSON' => [{ stdout: 'Fired!' }, 'exit code 0 and without an answer; it said: Fired!'],
      'JSON of another kind' => [{ stdout: '["x"]' }, 'exit code 0 and without an answer; it said: ["x"]'],
      'an empty document' => [{ stdout: '{}' }, 'exit code 0 and without an answer; it said: {}'],
      'half a document' => [{ stdout: '{"event_id":', signal: 'KILL' }, 'signal 9 and without an answer; it said: {"event_id":'],
    }.each do |what, (answer, sentence)|
      it "fails with a short sentence on #{what}" do
        program.answer(**answer)
        notify_trigger(hosts: 'a')
        expect(@failed).to be true
        expect(error).to eq "Failed to call refresh: Cannot fire: the program 'trigger' ended with #{sentence}"
      end
    end

    it 'survives bytes that are no text, and repeats only the end of a long complaint' do
      path = File.join(scratch, 'bin', 'trigger')
      program
      File.write(path, "#!/bin/sh\nprintf '\\377\\376'\nhead -c 100000 /dev/zero | tr '\\0' x >&2\nexit 7\n")
      notify_trigger(hosts: 'a')
      expect(error).to end_with("exit code 7 and without an answer; it said: #{'x' * 500}")
    end

    it 'is UTF-8 even where Ruby expects something else' do
      encoding = Encoding.default_external
      Encoding.default_external = Encoding::US_ASCII
      program.answer(stdout: 'größer')
      notify_trigger(hosts: 'a')
      expect(error).to end_with('it said: größer')
    ensure
      Encoding.default_external = encoding
    end
  end

  describe 'trouble' do
    it 'with a program that reads no input is only what the program says' do
      program
      File.write(program.path, "#!/bin/sh\necho '{\"error\":\"no\"}'\nexit 3\n")
      notify_trigger(hosts: (1..20_000).map { |n| "node#{n}.example.com" })
      expect(error).to eq 'Failed to call refresh: Cannot fire: no'
    end

    it 'with a missing program is one short sentence' do
      stub_const('Puppet::Provider::Trigger::DIRECTORIES', ['/nonexistent'])
      FileUtils.rm(program.path)
      notify_trigger(hosts: 'a')
      expect(@failed).to be true
      expect(error).to eq "Failed to call refresh: Cannot fire: the program 'trigger' is neither in PATH nor in " \
                          '/nonexistent; install Trigger on this node'
    end

    it 'with a program outside PATH, or with no PATH at all, is no trouble' do
      stub_const('Puppet::Provider::Trigger::DIRECTORIES', [program.directory])
      provider = Puppet::Type.type(:trigger).new(name: 'x').provider
      ENV['PATH'] = '/nonexistent'
      expect(provider.send(:program)).to eq program.path
      ENV.delete('PATH')
      expect(provider.send(:program)).to eq program.path
    end

    it 'with a program where the class says that it is, is no trouble, and it comes first' do
      elsewhere = FakeProgram.new(File.join(scratch, 'elsewhere'))
      resource = Puppet::Type.type(:trigger).new(name: 'x', hosts: 'a')
      allow(resource).to receive(:binary_path).and_return(elsewhere.path)
      ENV['PATH'] = program.directory
      expect(resource.provider.send(:program)).to eq elsewhere.path
      FileUtils.rm(elsewhere.path)
      expect(resource.provider.send(:program)).to eq program.path
      stub_const('Puppet::Provider::Trigger::DIRECTORIES', ['/nonexistent'])
      FileUtils.rm(program.path)
      expect { resource.provider.fire }.to raise_error(
        Puppet::Error, "Cannot fire: the program 'trigger' is neither at #{elsewhere.path} (trigger::binary_path) nor in " \
                       'PATH nor in /nonexistent; install Trigger on this node'
      )
    end

    it 'with a program that cannot be started is one short sentence' do
      File.write(program.path, "#!/nonexistent/interpreter\n")
      notify_trigger(hosts: 'a')
      expect(error).to start_with('Failed to call refresh: Cannot fire: Errno::ENOENT: No such file or directory')
    end

    it 'of an unforeseen kind never dumps what the provider holds, not even with a trace' do
      Puppet[:trace] = true
      secret = Class.new { define_method(:inspect) { 'a secret' } }.new
      culprit = "trigger_spec.rb:#{__LINE__ + 1}"
      allow(Open3).to receive(:capture3) { secret.surely_not_a_method }
      notify_trigger(hosts: 'a')
      expect(@failed).to be true
      expect(error).to start_with 'Failed to call refresh: Cannot fire: NoMethodError: surely_not_a_method'
      expect(lines(:err).join).to include(culprit).and(satisfy { |text| !text.include?('a secret') })
    end
  end

  describe 'a trigger that names no node' do
    [{}, { hosts: [], groups: [] }, { hosts: [nil] }].each do |parameters|
      it "warns and fires nothing with #{parameters}" do
        notify_trigger(**parameters)
        expect(program.calls).to eq []
        expect(logged(:warning)).to eq ['Nothing was fired: neither hosts nor groups name a node']
        expect(@failed).to be_falsey
      end
    end
  end
end
