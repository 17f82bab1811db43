# frozen_string_literal: true

# Relative, as for the providers.
require_relative '../../puppet_x/trigger/fired_data'

# This is a classic type, because only a classic type can be refreshed: the Resource API ignores a notify.
#
# Parameters are checked when the catalog is loaded, before anything changes. An error at the refresh would come
# too late, because the resource that notified is in sync by then and does not notify again. The names of targets are
# checked when the resource is evaluated, in every run, because they often come from data about other nodes.
Puppet::Type.newtype(:trigger) do
  @doc = <<~DOC
    @summary Runs Puppet on other nodes when something on this node notifies it

    Declaring a `trigger` does nothing. When a resource notifies it, it fires an event, and Puppet runs on
    each node that `hosts`, `groups` or `query` name. Several notifiers in one run fire one event; a `--noop` run
    fires none. The event outlives an unreachable backend: it waits on this node until it can be delivered.

    With `on_change` it also fires by itself, when the data that it is given differ from those it last fired for.

    Puppet itself drops a notify in these cases, for good, and nothing fires:

    * a resource that the trigger depends on failed in this run, another notifier or a `require`: Puppet skips
      the trigger;
    * the run is limited to tags (`--tags`, `tags` in `puppet.conf`) that the trigger does not have. Give
      `--tags TAG,trigger_internal`, for every trigger carries the tag `trigger_internal`, and notify the trigger
      itself: what notifies a class that contains it is dropped with the class. Runs that Trigger starts do so;
    * the run skips tags (`--skip_tags`, `skip_tags` in `puppet.conf`) that the trigger has, which are also its type,
      and the names of the classes and defined types around it;
    * the trigger has a `schedule`, and the run is outside of it;
    * the trigger has `noop => true`, or inherits it from a resource default or its class;
    * the run dies between the change and the trigger.

    A trigger warns at the beginning of each run of the limits, the schedule and the noop that it has.

    The default provider, `configured`, fires through the backend of the node's configuration
    (`/etc/trigger/trigger.toml`). `hub` and `etcd` name the kind of backend and take its URL from there;
    `dummy` goes the whole way and delivers nothing.

    A `trigger` requires by itself what it needs on its node, if the catalog manages it: the configuration
    `/etc/trigger/trigger.toml`, the package, and the program where the class `trigger` says that it is. So the very
    first run of a node can fire. It does not require the service: without an agent the event is published or kept
    all the same, and a service that does not start must not hold the event back. Where the manifest orders one of these
    after the `trigger`, it requires none of them.

    @example The load balancers converge when a web server's vhost changes
      trigger { 'refresh load balancers':
        hosts => ['lb01.example.com', 'lb02.example.com'],
      }

      file { '/etc/apache2/sites-enabled/shop.conf':
        content => epp('profile/shop.conf.epp'),
        notify  => Trigger['refresh load balancers'],
      }

    @example The load balancers converge when what this node exports to them changes
      $member = {
        listening_service => 'shop',
        ports             => '443',
        server_names      => $facts['networking']['fqdn'],
        ipaddresses       => $facts['networking']['ip'],
      }

      @@haproxy::balancermember { $facts['networking']['fqdn']:
        * => $member,
      }

      trigger { 'refresh load balancers':
        groups    => ['load-balancers'],
        on_change => $member,
      }

    @example All nodes that have haproxy, as PuppetDB knows them when the trigger fires
      trigger { 'refresh load balancers':
        query     => 'resources[certname] { type = "Class" and title = "Haproxy" }',
        on_change => $member,
      }

    @example Two database nodes that exchange keys until both know each other
      trigger { 'my keys have changed':
        hosts => $other_database_node,
        loops => 'allow',
      }

    @example Every member of a group, within half an hour or not at all
      trigger { 'new release':
        groups => ['web'],
        keyttl => '30m',
      }
  DOC

  # The characters that a certname or a group may hold; the program `trigger` has the same rule.
  node_name = /\A(?![.-])[a-z0-9._-]{1,255}\z/
  # Long values are shortened, because they would bury the sentence that quotes them.
  quote = ->(value) { value.inspect.length > 80 ? "#{value.inspect[0, 80]}…" : value.inspect }
  allowed = "it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', " \
            'and has at most 255 characters'
  # Puppet passes one value as it is, and several as an array; an undef inside an array arrives as nil.
  each_once = ->(value) { [value].flatten.reject { |element| element.nil? || element == :undef }.uniq }

  newparam(:name, namevar: true) do
    desc <<~DESC
      What the event is called in logs and in `trigger status`. Any printable characters, at most 255 bytes;
      quotes, slashes and shell characters are plain text.
    DESC

    validate do |value|
      text = value.to_s
      next if text.bytesize <= 255 && text.match?(/[^[:space:]]/) && !text.match?(/[[:cntrl:]]/)

      raise ArgumentError, "#{quote.call(text)} is not a trigger name: it may hold any printable characters, " \
                           'not only blanks and no line breaks, and has at most 255 bytes'
    end
  end

  newparam(:hosts) do
    desc <<~DESC
      The certnames of the nodes that run Puppet: one, or an array such as a query returns, of at most 100,000.
      Capitals become lower-case letters, because the host names that certnames are taken from may have some. Doubles
      count once. With neither `hosts` nor `groups` a refresh warns and fires nothing.

      An array often comes from data. So a name that cannot be a certname, or too many names, fails this resource in
      every run until it is mended, and fires nothing; the catalog's other resources are applied.
    DESC

    defaultto { [] }
    munge do |value|
      # What is no certname in lower case either stays as it was given, for the sentence that refuses it.
      fold = lambda do |element|
        folded = element.is_a?(String) ? element.downcase(:ascii).chomp('.') : ''
        folded.match?(node_name) ? folded : element
      end
      each_once.call(value).map(&fold).uniq
    end
  end

  newparam(:groups) do
    desc <<~DESC
      The groups whose members run Puppet: one, or an array of at most 64. Each node names its groups itself, in
      the configuration of its agent (class `trigger::agent`). What cannot be a group fails this resource, as with
      `hosts`.
    DESC

    defaultto { [] }
    munge { |value| each_once.call(value) }
  end

  newparam(:query) do
    desc <<~DESC
      A query in PuppetDB's language, PQL, whose nodes run Puppet, besides those of `hosts` and `groups`. It asks for
      certnames, as in `nodes[certname] { … }` or `resources[certname] { … }`; only active nodes count. The node asks
      PuppetDB when it fires, with its own certificate, at the address of its configuration (`[puppetdb]`) or of Puppet's
      `puppetdb.conf`. Without an answer the refresh fails, which Puppet does not repeat; with `on_change` the next run
      fires. If it finds no node and no other target is named, the trigger warns and fires nothing.
    DESC

    validate do |value|
      next if value.is_a?(String) && value.match?(/[^[:space:]]/) && value.bytesize <= 65_536 && !value.include?("\0")

      raise ArgumentError, "#{quote.call(value)} is not a query: it is PQL such as " \
                           "'resources[certname] { type = \"Class\" and title = \"Haproxy\" }', of at most 65536 bytes"
    end
  end

  newparam(:ttl) do
    desc <<~DESC
      How long a chain of events may get in which each run fires the next, in hops, from 1 to 64. It ends loops
      that the other guards do not recognise, and those that `loops` allows. Not a time: that is `keyttl`.
    DESC

    defaultto 5
    validate do |value|
      next if value.to_s.match?(/\A\d{1,2}\z/) && value.to_i.between?(1, 64)

      raise ArgumentError, "#{quote.call(value)} is not a number of hops: it is an integer from 1 to 64"
    end
    munge(&:to_i)
  end

  newparam(:loops) do
    desc <<~DESC
      What happens when a chain comes back: this trigger made a node run, that run led to others, and one of them
      notifies this trigger again.

      * `avoid`: a node that this trigger already made run in the chain is suppressed, with a warning. Right for
        nearly everything, since a run that Trigger starts applies the whole configuration.
      * `allow`: it runs again. For nodes whose configurations take turns until both have settled: each publishes
        what the other needs, and the answer lets it publish the next. Such manifests must come to rest by
        themselves, with a run that changes nothing and so notifies no node. Where they do not, the chain still
        ends: after `ttl` hops, or when this trigger has fired three times on one node for the same root event.
        Raise `ttl` (default 5) where the nodes need more rounds.
    DESC

    newvalues(:avoid, :allow)
    defaultto :avoid
  end

  # Puppet sees no data here, only whether the trigger has fired for them: values of properties are in logs and reports.
  # Not idempotent means that a change is never a corrective one.
  newproperty(:on_change, event: :fired, idempotent: false) do
    desc <<~DESC
      Data that other nodes need of this one: any value, `Sensitive` too. The trigger fires when their digest is another
      one than that of the data it last fired for on this node, at first for any data. The order of the keys in a hash does
      not count. The digest is stored, in Puppet's `statedir`, when the event is committed or spooled. So an event that could
      not be fired, or all of whose targets were suppressed, is fired by a later run, which a notify never is. A notify and
      other data in one run fire one event. With neither `hosts` nor `groups` each run warns until there are some, and
      fires then.

      The trigger fires where Puppet comes to it: let it require what has to be in place before other nodes run.
    DESC

    def should=(data)
      @digest = PuppetX::Trigger::FiredData.digest_of(data)
      super('fired')
    end

    # The values that Puppet sees are not sensitive.
    def sensitive=(_sensitive); end

    def retrieve
      return 'fired' if fired_data.digest == @digest
      return 'not fired' if resource.targets?

      resource.warn_of_no_targets
      'fired'
    end

    def set(_fired)
      resource.fire
    end

    # The event is durable. If only the note of it fails, the next run fires again.
    def note_fired
      fired_data.digest = @digest
    rescue SystemCallError => e
      resource.warning("The event is fired, and the next run fires it again: cannot write #{fired_data.path}: #{e.message}")
    end

    def change_to_s(_current, _new)
      'fired for other data than before'
    end

    def is_to_s(value) # rubocop:disable Naming/PredicateName -- Puppet calls it
      value
    end

    def should_to_s(value)
      value
    end

    # Puppet has no other place for the words of a noop run.
    def format(text, *values)
      text.include?('(noop)') ? 'would fire for other data than before (noop)' : super
    end

    def fired_data
      @fired_data ||= PuppetX::Trigger::FiredData.new(resource[:name])
    end
  end

  newparam(:keyprefix) do
    desc <<~DESC
      Where in the backend the event is kept, such as `/puppet_trigger/events`. Unset, it is the prefix of the
      node's configuration. Only agents with the same prefix see the event.
    DESC

    validate do |value|
      next if value.to_s.length <= 255 && value.to_s.match?(%r{\A(/[A-Za-z0-9._-]+)+\z})

      raise ArgumentError, "#{quote.call(value)} is not a key prefix: it is a path such as /puppet_trigger/events, " \
                           "of letters, digits, '.', '_' and '-' between the slashes, at most 255 characters"
    end
  end

  newparam(:keyttl) do
    desc <<~DESC
      How long the event is worth a run: seconds as an integer, or a number with a unit such as `90s`, `30m`,
      `12h` or `1d`; from one second to seven days. A node that comes back later than that does not run. Unset,
      an event lives for one day.
    DESC

    # The program takes a bare number for seconds too.
    seconds = { '' => 1, 's' => 1, 'm' => 60, 'h' => 3600, 'd' => 86_400 }
    validate do |value|
      number, unit = value.to_s.match(/\A(\d{1,9})([smhd]?)\z/)&.captures
      next if number && (number.to_i * seconds[unit]).between?(1, 604_800)

      raise ArgumentError, "#{quote.call(value)} is not a lifetime: it is a number of seconds, or a number with " \
                           "one of the units 's', 'm', 'h' and 'd', from one second to seven days"
    end
    munge { |value| value.to_s.match?(/\d\z/) ? "#{value.to_i}s" : value }
  end

  # The limits of one event; the program `trigger` has the same limits, and would refuse the event at the refresh.
  targets = { hosts: ['a certname', 100_000], groups: ['a group', 64] }

  # Returns why this resource can fire no event, or nil. A parameter that is refused stops the whole catalog, and
  # targets often come from data about other nodes: so the resource fails when Puppet evaluates it.
  define_method(:target_problem) do
    targets.each do |parameter, (what, most)|
      names = Array(self[parameter])
      bad = names.reject { |name| name.is_a?(String) && name.match?(node_name) }
      return "#{parameter}: #{quote.call(bad.first)} is not #{what}: #{allowed}" unless bad.empty?
      return "#{names.length} #{parameter} are too many for one trigger: at most #{most}" if names.length > most
    end
    nil
  end

  # Puppet calls this when it evaluates the resource, also in noop mode and when nothing notifies. What is raised here
  # fails this resource alone.
  def retrieve
    check_targets
    super
  end

  # The class `trigger` in this catalog, if it is declared there.
  def program_class
    catalog&.resource('Class', 'Trigger')
  end

  # Where the class `trigger` says that the program is, or nil.
  def binary_path
    program_class&.[](:binary_path)
  end

  # What firing needs on this node, by type: requiring only some of them could close a cycle, since a file requires
  # its directory by itself.
  def needs
    package = program_class&.[](:package_name)
    { file: ['/etc/trigger', '/etc/trigger/trigger.toml', binary_path].compact, package: [package || 'trigger'] }
  end

  # Whether firing works without the resources of this catalog: a failed upgrade of the package, for example, must not
  # lose the notifies of a node that has the program and its configuration.
  def ready?
    program = [binary_path, '/usr/bin/trigger', '/usr/local/bin/trigger', '/opt/puppetlabs/bin/trigger'].compact
    program.any? { |path| File.executable?(path) } && File.exist?('/etc/trigger/trigger.toml')
  end

  # Of one type. Where the manifest orders one of them after this resource, it requires none: a cycle would stop the
  # whole catalog.
  def required(type)
    managed = needs.flat_map { |kind, names| names.map { |name| catalog.resource(kind, name) } }.compact
    return [] if managed.empty? || ready? || !(managed & ordered_after).empty?

    needs[type]
  end

  autorequire(:file) { required(:file) }
  autorequire(:package) { required(:package) }

  # Returns what comes directly after each resource: by the manifest, and by what the types require by themselves, such as
  # a file its owner and its directory. It is read once for each catalog, however many triggers there are.
  def self.followers_in(catalog)
    @followers ||= ObjectSpace::WeakMap.new
    # A catalog of rspec-puppet has resources that are not of this kind.
    ordered = catalog.resources.grep(Puppet::Type)
    @followers[catalog] ||= ordered.flat_map { |resource| resource.builddepends + implied_order(resource, catalog) }
                                   .group_by(&:source).transform_values { |edges| edges.map(&:target) }
  end

  def self.implied_order(resource, catalog)
    return [] if resource.is_a?(self)

    %i[autorequire autosubscribe autobefore autonotify].flat_map { |kind| resource.send(kind, catalog) }
  end

  # Returns what comes after this resource, itself or by a container of either.
  def ordered_after
    followers = self.class.followers_in(catalog)
    found = {}
    open = [self]
    until open.empty?
      resource = open.shift
      new = [resource, *containers(resource)].flat_map { |before| followers.fetch(before, []) }
      new = new.flat_map { |after| [after, *contents(after)] }.reject { |after| found[after] }.uniq
      new.each { |after| found[after] = true }
      open.concat(new)
    end
    found.keys
  end

  # The class or define that holds a resource, the one that holds that, and so on.
  def containers(resource)
    parents = catalog.adjacent(resource, direction: :in)
    parents.flat_map { |parent| [parent, *containers(parent)] }
  end

  def contents(container)
    catalog.adjacent(container, direction: :out).flat_map { |content| [content, *contents(content)] }
  end

  # A run that Trigger limits to some tags adds this one to them, or it would drop the notifies of what it
  # changes (`PRIVATE_TAG` in crates/trigger-core).
  def initialize(resource)
    super
    tag('trigger_internal')
  end

  # Puppet calls this before it applies anything. It reports nothing when it skips a resource and drops the notifies.
  def pre_run_check
    super
    reason = lost_notifies
    warning("Notifies are lost: #{reason}") if reason
  end

  # Returns why this trigger does not fire although it may be notified, as far as that is known before the run.
  def lost_notifies
    tags, skipped = %i[tags skip_tags].map { |setting| Puppet[setting].to_s.split(',').map(&:strip).reject(&:empty?) }
    skipped.select! { |tag| tagged?(tag) }
    if tags.any? && !tagged?(*tags)
      "this run is limited to the tags #{tags.join(', ')}; add trigger_internal to them"
    elsif skipped.any?
      "this run skips the tag #{skipped.join(', ')}, which this trigger has"
    elsif self[:schedule] && !Puppet[:ignoreschedules]
      "the schedule '#{self[:schedule]}' drops what notifies this trigger outside of its time; remove the schedule"
    elsif self[:noop] == true && !Puppet[:noop]
      'this trigger has noop => true'
    end
  end

  def check_targets
    problem = target_problem
    raise Puppet::Error, "Cannot fire: #{problem}" if problem
  end

  # Puppet calls this once in a run, however many resources notify, and never in noop mode.
  # It also calls this after a resource has failed.
  def refresh
    check_targets
    targets? ? fire : warn_of_no_targets
  end

  # Fires one event in a run, for other data and a notify together: `on_change` comes first, and what it could not fire
  # the next run fires.
  def fire
    return if @has_fired

    @has_fired = true
    property(:on_change)&.note_fired if provider.fire
  end

  def targets?
    !(self[:hosts].empty? && self[:groups].empty? && self[:query].nil?)
  end

  def warn_of_no_targets
    warning('Nothing was fired: neither hosts nor groups name a node') unless @has_warned
    @has_warned = true
  end
end
