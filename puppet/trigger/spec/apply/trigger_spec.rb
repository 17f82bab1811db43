# frozen_string_literal: true

require 'etc'

# Runs the real `puppet apply` on real manifests, with a fake program in PATH.
RSpec.describe 'puppet apply' do
  include Scratch

  let(:program) { FakeProgram.new(File.join(scratch, 'bin')) }

  it 'fires what was notified, once, and nothing else' do
    run = puppet_apply(<<~'PUPPET', program)
      trigger { 'notified thrice':
        hosts => ['lb01.example.com', 'lb02.example.com'],
      }
      notify { ['first', 'second']: notify => Trigger['notified thrice'] }
      notify { 'third': } ~> Trigger['notified thrice']

      trigger { 'only declared': hosts => 'lb01.example.com' }

      trigger { 'noop by itself': hosts => 'lb01.example.com', noop => true, subscribe => Notify['first'] }

      notify { 'noop source': noop => true, notify => Trigger['with a noop source'] }
      trigger { 'with a noop source': hosts => 'lb01.example.com' }

      trigger { 'größer "$(id)"':
        hosts     => 'lb01.example.com',
        groups    => ['web'],
        keyprefix => '/puppet_trigger/events',
        keyttl    => 300,
        ttl       => 2,
        provider  => 'etcd',
        subscribe => Notify['second'],
      }

      trigger { 'without targets': hosts => undef, subscribe => Notify['first'] }
    PUPPET

    expect(program.calls).to contain_exactly(
      [['fire', '--output', 'json', '--certname', 'web01.example.com', '--hosts-from', '-', '--ttl', '5', '--',
        'notified thrice'], "lb01.example.com\nlb02.example.com\n"],
      [['fire', '--output', 'json', '--certname', 'web01.example.com', '--hosts-from', '-', '--group', 'web',
        '--ttl', '2', '--expires-in', '300s', '--prefix', '/puppet_trigger/events', '--backend', 'etcd', '--',
        'größer "$(id)"'], "lb01.example.com\n"]
    )
    expect(program.declarations.first).to match [
      '--resource', %r{\A/Stage\[main\]/Main/Trigger\[}, '--resource-file', %r{\A/.*\.pp\z}, '--resource-line', /\A\d+\z/
    ]
    expect(run.code).to eq(2), run.output
    expect(run.output).to match(/Trigger\[notified thrice\]: Fired 01935000-\S+ at 2 nodes/)
    # Puppet warns neither about several providers nor about a deprecated feature.
    expect(run.problems).to eq [
      'Warning: /Stage[main]/Main/Trigger[noop by itself]: Notifies are lost: this trigger has noop => true',
      'Warning: /Stage[main]/Main/Trigger[without targets]: Nothing was fired: neither hosts nor groups name a node',
    ]
  end

  describe 'a run that cannot notify' do
    let(:manifest) { <<~PUPPET }
      schedule { 'never': period => never }
      notify { 'change': tag => 'web', notify => Trigger['plain', 'scheduled'] }
      trigger { 'plain': hosts => 'lb01.example.com' }
      trigger { 'scheduled': hosts => 'lb01.example.com', schedule => 'never', tag => 'web' }
    PUPPET

    def lost(title, why)
      "Warning: /Stage[main]/Main/Trigger[#{title}]: Notifies are lost: #{why}"
    end

    it 'warns of a schedule' do
      run = puppet_apply(manifest, program)
      expect(program.calls.length).to eq 1
      why = "the schedule 'never' drops what notifies this trigger outside of its time; remove the schedule"
      expect(run.problems).to eq [lost('scheduled', why)]
    end

    it 'warns of tags that it lacks, unless the private tag is among them' do
      why = 'this run is limited to the tags nothing, else; add trigger_internal to them'
      run = puppet_apply(manifest, program, '--tags', 'nothing,else')
      expect(program.calls).to eq []
      expect(run.problems).to eq [lost('plain', why), lost('scheduled', why)]
      run = puppet_apply(manifest, program, '--tags', 'web,trigger_internal', '--ignoreschedules')
      expect([program.calls.length, run.problems]).to eq [2, []]
    end

    it 'warns of tags that are skipped' do
      run = puppet_apply(manifest, program, '--skip_tags', 'other,trigger')
      expect(program.calls).to eq []
      why = 'this run skips the tag trigger, which this trigger has'
      expect(run.problems).to eq [lost('plain', why), lost('scheduled', why)]
    end
  end

  it 'fires nothing with --noop, and says what it would do' do
    run = puppet_apply(<<~PUPPET, program, '--noop')
      notify { 'change': notify => Trigger['t'] }
      trigger { 't': hosts => 'lb01.example.com' }
    PUPPET

    expect(program.calls).to eq []
    expect(run.output).to include("Trigger[t]: Would have triggered 'refresh' from 1 event")
  end

  describe 'with --tags' do
    let(:manifest) { <<~PUPPET }
      notify { 'change': tag => 'web', notify => Trigger['t'] }
      trigger { 't': hosts => 'lb01.example.com' }
    PUPPET

    it 'fires when the private tag is among them' do
      puppet_apply(manifest, program, '--tags', 'web,trigger_internal')
      expect(program.fired).to eq ['t']
    end

    it 'loses the notify otherwise, which is why the private tag exists' do
      puppet_apply(manifest, program, '--tags', 'web')
      expect(program.fired).to eq []
    end
  end

  it 'fires on the very run that installs the program' do
    program = FakeProgram.new(File.join(scratch, 'bin'), install: false)
    File.write(File.join(scratch, 'source'), program.text)
    run = puppet_apply(<<~PUPPET, program)
      notify { 'before the program': }
      -> file { '#{program.path}': source => '#{scratch}/source', mode => '0755' }
      ~> trigger { 't': hosts => 'lb01.example.com' }
    PUPPET

    expect(run.code).to eq(2), run.output
    # Puppet still uses the default provider, which names no backend.
    expect(program.calls).to eq [
      [['fire', '--output', 'json', '--certname', 'web01.example.com', '--hosts-from', '-', '--ttl', '5', '--', 't'],
       "lb01.example.com\n"],
    ]
    expect(run.problems).to eq []
  end

  it 'works from the directory that pluginsync fills, without the module' do
    FileUtils.cp_r(File.expand_path('../../lib', __dir__), File.join(scratch, 'synced'))
    run = puppet_apply(<<~PUPPET, program, '--libdir', File.join(scratch, 'synced'), modules: '/nonexistent')
      notify { 'change': notify => Trigger['t'] }
      trigger { 't': hosts => 'lb01.example.com', provider => 'hub' }
    PUPPET

    expect(program.fired).to eq(['t']), run.output
  end

  describe 'with a host that cannot be a certname' do
    let(:manifest) { <<~PUPPET }
      trigger { 't': hosts => ['lb01.example.com', 'LB 02'] }
      file { '#{scratch}/changed': content => 'x', notify => Trigger['t'] }
      trigger { 'other': hosts => 'LB01.Example.com', subscribe => File['#{scratch}/changed'] }
    PUPPET

    it 'fails this trigger and applies everything else' do
      run = puppet_apply(manifest, program)
      expect(run.code).to eq 6
      expect(run.output).to include(
        'Trigger[t]: Could not evaluate: Cannot fire: hosts: "LB 02" is not a certname: it may hold'
      )
      expect(File.read("#{scratch}/changed")).to eq 'x'
      expect(program.fired).to eq ['other']
      expect(program.calls.first.last).to eq "lb01.example.com\n"
    end

    it 'fails it in every run, also with nothing to change and with --noop' do
      File.write("#{scratch}/changed", 'x')
      [[], ['--noop']].each do |flags|
        run = puppet_apply(manifest, program, *flags)
        expect(run.code).to eq(4), run.output
        expect(run.output).to include('Trigger[t]: Could not evaluate: Cannot fire: hosts: "LB 02"')
      end
      expect(program.fired).to eq []
    end
  end

  describe 'what it requires by itself' do
    # A class `trigger` of the manifest's own, whose program lies in the scratch directory.
    let(:first_run) { <<~PUPPET }
      class trigger(String $binary_path, $package_name = undef) {
        file { $binary_path: source => '#{scratch}/source', mode => '0755' }
      }
      class { 'trigger': binary_path => '#{scratch}/elsewhere/bin/trigger', require => File['#{scratch}/elsewhere/bin'] }
      file { ['#{scratch}/elsewhere', '#{scratch}/elsewhere/bin']: ensure => directory }
    PUPPET
    let(:elsewhere) { FakeProgram.new(File.join(scratch, 'elsewhere/bin'), install: false) }

    before do
      File.write(File.join(scratch, 'source'), elsewhere.text)
      FileUtils.rm_rf(elsewhere.directory)
    end

    it 'is the program where the class says that it is, installed in the same run' do
      path = FakeProgram.new(File.join(scratch, 'bin'), install: false)
      run = puppet_apply(<<~PUPPET, path)
        trigger { 't': hosts => 'lb01.example.com' }
        notify { 'change': notify => Trigger['t'] }
        #{first_run}
      PUPPET

      expect(elsewhere.fired).to eq(['t']), run.output
      expect(run.code).to eq 2
    end

    it 'is nothing where the manifest orders it the other way round, by a class of either' do
      program
      [
        "trigger { 't': hosts => 'a', before => Class['trigger'] }",
        "class one { trigger { 't': hosts => 'a' } }\ninclude one\nClass['one'] -> Class['trigger']",
        "trigger { 't': hosts => 'a' } -> notify { 'then': } -> File['#{scratch}/elsewhere/bin/trigger']",
        "class two { notify { 'inside': } }\ninclude two\ntrigger { 't': hosts => 'a', before => Class['two'] }\n" \
        "Notify['inside'] -> Class['trigger']",
        # By what the types require by themselves: a file its owner, and its directory.
        "File { owner => '#{Etc.getpwuid.name}' }\nclass users { user { '#{Etc.getpwuid.name}': ensure => present } }\n" \
        "class app { trigger { 't': hosts => 'a' } }\ninclude app, users\nClass['app'] -> Class['users']",
        "trigger { 't': hosts => 'a', before => Notify['late'] }\nnotify { 'late': before => File['#{scratch}/elsewhere'] }",
      ].each do |order|
        run = puppet_apply("#{order}\n#{first_run}\nnotify { 'change': notify => Trigger['t'] }", program)
        expect(run.output).not_to include('dependency cycle')
        expect(run.code).to eq(2), run.output
        FileUtils.rm_rf(File.join(scratch, 'elsewhere'))
      end
      expect(program.fired).to eq %w[t] * 6
    end
  end

  describe 'with on_change' do
    def apply(data, *flags, more: '')
      puppet_apply("trigger { 't': hosts => 'lb01.example.com', on_change => #{data} }\n#{more}", program, *flags)
    end

    it 'fires for other data, once for each, and shows none of them' do
      changed = "Notice: /Stage[main]/Main/Trigger[t]/on_change: fired for other data than before\n"
      run = apply("{ 'name' => 'web01', 'ports' => [80, 443], 'secret' => Sensitive('xyzzy') }")
      expect(run.code).to eq(2), run.output
      expect(run.output).to include('Trigger[t]: Fired 01935000-').and include(changed)
      run = apply("{ 'ports' => [80, 443], 'secret' => Sensitive('xyzzy'), 'name' => 'web01' }")
      expect([run.code, run.problems]).to eq([0, []]), run.output
      run = apply("Sensitive({ 'ports' => [80], 'secret' => 'xyzzy' })", '--debug')
      expect(run.output).to include(changed)
      # Nor does what Puppet writes about its runs.
      written = Dir.glob("#{scratch}/{publicdir,vardir}/**/*.yaml").map { |file| File.read(file) }.join
      expect(written).to include('on_change')
      expect(run.output + written).not_to include('xyzzy')
      expect(written.scan('corrective_change: true')).to eq []
      expect(program.fired).to eq %w[t t]
    end

    it 'fires once with a notify, and for a notify alone' do
      notify = "notify { 'change': notify => Trigger['t'] }"
      2.times { apply("'one'", more: notify) }
      expect(program.fired).to eq %w[t t]
    end

    it 'says with --noop that it would fire, and does in the next run' do
      run = apply("'one'", '--noop', more: "notify { 'change': notify => Trigger['t'] }")
      expect(run.output).to include('Trigger[t]/on_change: would fire for other data than before (noop)')
      expect(program.fired).to eq []
      apply("'one'")
      expect(program.fired).to eq %w[t]
    end

    it 'fires in the next run what could not be fired, once in a run' do
      program.answer(stdout: '{"error":"no room in the outbox","warnings":[]}', code: 1)
      run = apply("'one'", more: "notify { 'change': notify => Trigger['t'] }")
      expect(run.code).to eq 6
      expect(run.problems).to include(
        'Error: /Stage[main]/Main/Trigger[t]/on_change: change from not fired to fired failed: Cannot fire: no room in the outbox'
      )
      expect(program.fired).to eq %w[t]
      program.answer(stdout: '{"event_id":"1","state":"suppressed","targets":[],"warnings":[]}')
      apply("'one'")
      program.answer(stdout: '{"event_id":"1","state":"spooled","targets":[],"warnings":["it waits"]}')
      2.times { apply("'one'") }
      expect(program.fired).to eq %w[t t t]
    end

    it 'warns where it has no targets, and fires when it has some' do
      manifest = "trigger { 't': hosts => %s, on_change => 'one' }\nnotify { 'change': notify => Trigger['t'] }"
      run = puppet_apply(format(manifest, '[]'), program)
      expect(run.problems).to eq ['Warning: /Stage[main]/Main/Trigger[t]: Nothing was fired: neither hosts nor groups name a node']
      puppet_apply(format(manifest, "'lb01.example.com'").lines.first, program)
      expect(program.fired).to eq %w[t]
    end
  end

  it 'reports a refusal as a failed refresh, shortly' do
    program.answer(stdout: '{"error":"no room in the outbox","warnings":[]}', code: 1)
    run = puppet_apply(<<~PUPPET, program)
      notify { 'change': notify => Trigger['t'] }
      trigger { 't': hosts => 'lb01.example.com' }
    PUPPET

    expect(run.code).to eq 6
    # The error appears twice, because Puppet logs the failure of the refresh and the exception behind it.
    expect(run.problems).to eq [
      'Error: /Stage[main]/Main/Trigger[t]: Failed to call refresh: Cannot fire: no room in the outbox',
      'Error: /Stage[main]/Main/Trigger[t]: Cannot fire: no room in the outbox',
    ]
  end
end
