# frozen_string_literal: true

RSpec.describe 'the type trigger' do
  def trigger(**parameters)
    Puppet::Type.type(:trigger).new(name: 'refresh load balancers', **parameters)
  end

  # Returns a parameter's munged value, or the sentence that refuses it.
  def value_of(parameter, value)
    trigger(parameter => value)[parameter]
  rescue Puppet::ResourceError => e
    e.message[/\AParameter #{parameter} failed on Trigger\[.*\]: (.*)\z/m, 1]
  end

  # Returns the sentence with which the resource fails when Puppet evaluates it, or nil.
  def evaluation(**parameters)
    trigger(**parameters).retrieve
    nil
  rescue Puppet::Error => e
    e.message
  end

  it 'has no property but on_change: declared, it has nothing to bring about' do
    expect(Puppet::Type.type(:trigger).properties.map(&:name)).to eq [:on_change]
    expect(trigger.properties).to eq []
    expect(Puppet::Type.type(:trigger).parameters).to match_array(
      %i[name hosts groups query ttl loops keyprefix keyttl provider]
    )
  end

  it 'documents every parameter and every provider' do
    type = Puppet::Type.type(:trigger)
    undocumented = (type.parameters + [:on_change] - [:provider]).reject { |name| type.attrclass(name).doc.length > 60 }
    expect(undocumented).to eq []
    expect(type.providers.reject { |name| type.provider(name).doc.length > 40 }).to eq []
  end

  it 'starts from the defaults of the original' do
    expect(trigger.to_hash).to include(hosts: [], groups: [], ttl: 5, loops: :avoid)
    expect(trigger.to_hash.keys).not_to include(:keyprefix, :keyttl)
  end

  it 'carries the tag that tagged runs of Trigger ask for, beside its own' do
    expect(trigger(tag: 'web')).to be_tagged('trigger_internal').and be_tagged('web')
  end

  describe 'hosts and groups' do
    { hosts: 'a certname', groups: 'a group' }.each do |parameter, what|
      {
        'lb01.example.com' => ['lb01.example.com'],
        ['lb01.example.com'] => ['lb01.example.com'],
        %w[b a b] => %w[b a],
        [%w[a b], ['c']] => %w[a b c],
        [nil, 'a', :undef] => ['a'],
        [nil] => [],
        [] => [],
        '0_x-y.z' => ['0_x-y.z'],
        'x' * 255 => ['x' * 255],
      }.each do |given, expected|
        it "#{parameter} takes #{given.inspect[0, 40]}" do
          expect(value_of(parameter, given)).to eq expected
        end
      end

      ['', 'lb 01', 'a/b', '..', '-rf', '.hidden', "a\n", 'ä', "a\nb", 'x' * 256, 7, { 'certname' => 'a' },
       '$(id)'].each do |given|
        it "#{parameter} with #{given.inspect[0, 40]} fails the evaluation and says what is allowed" do
          expect(evaluation(parameter => ['a', given])).to start_with("Cannot fire: #{parameter}: #{given.inspect[0, 80]}")
            .and include(
              "is not #{what}: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' " \
              "and '-', and has at most 255 characters"
            )
        end
      end
    end

    { 'LB01.Example.com' => ['lb01.example.com'], %w[LB01 lb01 Lb01] => ['lb01'], ['B', nil, ['A']] => %w[b a] }
      .each do |given, expected|
        it "hosts folds the case of #{given.inspect}, and doubles count once" do
          expect(value_of(:hosts, given)).to eq expected
          expect(evaluation(hosts: given)).to be_nil
        end
      end

    it 'folds no case of groups, which have one spelling everywhere' do
      expect(evaluation(groups: 'Web')).to include('"Web" is not a group')
    end

    { hosts: 100_000, groups: 64 }.each do |parameter, most|
      it "take #{most} #{parameter}, each once, and fail the evaluation with more" do
        names = (1..most).map { |n| "n#{n}" }
        expect(evaluation(parameter => names + ['n1'])).to be_nil
        expect(evaluation(parameter => names + ['one-more'])).to eq(
          "Cannot fire: #{most + 1} #{parameter} are too many for one trigger: at most #{most}"
        )
      end
    end

    it 'keeps a refusal short, whatever was given' do
      expect(evaluation(hosts: ' ' * 1_000_000).length).to be < 300
    end
  end

  describe 'what it requires by itself' do
    def required(*resources, **parameters)
      catalog = Puppet::Resource::Catalog.new('web01.example.com')
      subject = trigger(**parameters)
      catalog.add_resource(subject, *resources)
      edges = catalog.relationship_graph.adjacent(subject, direction: :in, type: :edges)
      edges.map { |edge| edge.source.ref }
    end

    def file(path)
      Puppet::Type.type(:file).new(path: path, ensure: :file)
    end

    def package(name)
      Puppet::Type.type(:package).new(name: name)
    end

    def program_class(**parameters)
      Puppet::Type.type(:component).new(name: 'Class[Trigger]', **parameters)
    end

    it 'is the configuration and the package' do
      expect(required(file('/etc/trigger/trigger.toml'), file('/etc/other'), package('trigger'), package('other')))
        .to match_array %w[File[/etc/trigger/trigger.toml] Package[trigger]]
    end

    it 'is the package and the program that the class names' do
      parts = [program_class(binary_path: '/opt/t/trigger', package_name: 'acme-trigger')]
      parts += [file('/opt/t/trigger'), package('acme-trigger'), package('trigger')]
      expect(required(*parts)).to match_array %w[File[/opt/t/trigger] Package[acme-trigger]]
    end

    it 'is no service, which must not hold an event back' do
      expect(required(Puppet::Type.type(:service).new(name: 'trigger-agent'))).to eq []
    end

    it 'is nothing in a catalog that manages none of it' do
      expect(required).to eq []
    end

    it 'is nothing where one of them comes after it' do
      parts = [file('/etc/trigger'), file('/etc/trigger/trigger.toml'), package('trigger')]
      expect(required(*parts, before: 'File[/etc/trigger]')).to eq []
    end
  end

  describe 'name' do
    ['a/b', '$(rm -rf /)', %q(it's "quoted"), '`x`;|&', 'größer', '-x', '--', 'x' * 255].each do |name|
      it "takes #{name[0, 40].inspect}" do
        expect(value_of(:name, name)).to eq name
      end
    end

    ['  ', "a\nb", "a\u0000b", "a\u007fb", 'ä' * 128].each do |name|
      it "refuses #{name[0, 40].inspect}" do
        expect(value_of(:name, name)).to include('is not a trigger name: it may hold any printable characters')
      end
    end
  end

  describe 'ttl' do
    { 1 => 1, 64 => 64, '7' => 7 }.each do |given, expected|
      it("takes #{given.inspect}") { expect(value_of(:ttl, given)).to eq expected }
    end

    [0, 65, -1, 1.5, '5m', 'x', '', [1], 10**30].each do |given|
      it "refuses #{given.inspect}" do
        expect(value_of(:ttl, given)).to include('is not a number of hops: it is an integer from 1 to 64')
      end
    end
  end

  describe 'loops' do
    { 'avoid' => :avoid, 'allow' => :allow, allow: :allow }.each do |given, expected|
      it("takes #{given.inspect}") { expect(value_of(:loops, given)).to eq expected }
    end

    ['', 'Allow', 'yes', true, 1, %w[avoid allow]].each do |given|
      it "refuses #{given.inspect}" do
        expect(value_of(:loops, given)).to include('Valid values are avoid, allow')
      end
    end
  end

  describe 'query' do
    it 'is PQL of any form, and a target by itself' do
      query = "resources[certname] {\n  type = 'Class' }"
      expect(value_of(:query, query)).to eq query
    end

    [nil, '', "  \n", 'x' * 65_537, "a\0b", %w[a b], 7].compact.each do |given|
      it("refuses #{given.inspect[0, 40]}") { expect(value_of(:query, given)).to include('is not a query: it is PQL such as') }
    end
  end

  describe 'keyttl' do
    { 300 => '300s', '300' => '300s', '90s' => '90s', '30m' => '30m', '12h' => '12h', '1d' => '1d',
      604_800 => '604800s', '7d' => '7d', '007' => '7s' }.each do |given, expected|
      it("takes #{given.inspect}") { expect(value_of(:keyttl, given)).to eq expected }
    end

    [0, 604_801, '8d', '0s', '1w', '1 d', '-5', '1h30m', '', "1d\n", '9999999999', 1.5, %w[1d 2d]].each do |given|
      it "refuses #{given.inspect}" do
        expect(value_of(:keyttl, given)).to include('is not a lifetime').and include('from one second to seven days')
      end
    end
  end

  describe 'keyprefix' do
    ['/puppet_trigger/events', '/a', "/#{'x' * 254}"].each do |given|
      it("takes #{given[0, 40]}") { expect(value_of(:keyprefix, given)).to eq given }
    end

    ['', '/', 'a', '/a/', '//a', '/a b', "/#{'x' * 255}", "/a\n"].each do |given|
      it "refuses #{given[0, 40].inspect}" do
        expect(value_of(:keyprefix, given)).to include('is not a key prefix: it is a path such as')
      end
    end
  end

  describe 'provider' do
    it 'is the configured one, without a warning about several candidates' do
      logs = []
      Puppet::Util::Log.newdestination(Puppet::Test::LogCollector.new(logs))
      Puppet::Type.type(:trigger).instance_variable_set(:@defaultprovider, nil)
      expect(trigger.provider.class.name).to eq :configured
      expect(logs.map(&:to_s)).to eq []
    end

    it 'is suitable everywhere, with the program or without' do
      type = Puppet::Type.type(:trigger)
      expect(type.providers).to match_array(%i[configured hub etcd dummy])
      expect(type.suitableprovider.map(&:name)).to match_array(%i[configured hub etcd dummy])
    end

    { configured: nil, hub: 'hub', etcd: 'etcd', dummy: 'dummy:' }.each do |provider, backend|
      it "#{provider} names #{backend.inspect} as its backend" do
        expect(trigger(provider: provider).provider.class.backend).to eq backend
      end
    end
  end
end
