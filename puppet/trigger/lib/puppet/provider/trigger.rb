# frozen_string_literal: true

require 'json'
require 'open3'
require 'puppet/provider'

# The base of all providers of the type `trigger`: it passes an argument list to the program `trigger` and reads
# one JSON document. The program does everything else (delivery, loops, expiry), and this code must not repeat
# its decisions.
#
# No provider is confined to the program's presence. Puppet would then choose another provider on the very
# run that installs the program, remember that choice, and lose that run's events.
class Puppet::Provider::Trigger < Puppet::Provider
  PROGRAM = 'trigger'
  # The directories where packages put the program, searched after PATH, because a daemon's PATH is often short.
  DIRECTORIES = ['/usr/bin', '/usr/local/bin', '/opt/puppetlabs/bin'].freeze
  # The characters that a terminal interprets or hides: those of `is_hidden` in crates/trigger/src/clean.rs.
  HIDDEN = /
    [\p{Cc}\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0] |
    [\ufff9-\ufffb\u{e0000}-\u{e007f}]
  /x.freeze
  # How many characters of the end of the program's standard error an error message repeats.
  STDERR_SHOWN = 500
  # The states of an event that is durable and has targets that shall run.
  DURABLE = %w[committed spooled].freeze

  class << self
    # The value of `--backend`; nil leaves the choice to the node's configuration.
    attr_accessor :backend
  end

  # Fires the event of this resource. Returns whether it is committed, or safely kept on this node; if not, all its targets
  # are suppressed. Anything else raises a Puppet::Error of one sentence.
  #
  # Anything else that is raised becomes such a sentence too: the message of a NoMethodError holds a dump of
  # its receiver, maybe the whole catalog, and Puppet would log it and store it in the report.
  def fire
    report(*run_program)
  rescue Puppet::Error
    raise
  rescue StandardError => e
    detail = e.is_a?(NameError) ? e.name : e.message[0, STDERR_SHOWN]
    raise Puppet::Error, "Cannot fire: #{e.class}: #{detail}", e.backtrace
  end

  private

  # This does not use Puppet::Util::Execution.execute, which either mixes a program's standard error into its
  # output or drops it, so that a crash would leave no trace. An array of words never reaches a shell. In a
  # process group of its own, the program can finish when an operator interrupts Puppet from the terminal.
  def run_program
    stdout, stderr, status = Open3.capture3(program, *arguments, stdin_data: hosts_as_lines, pgroup: true)
    [text(stdout), text(stderr), status]
  end

  # Hosts go to standard input: ten thousand arguments do not fit everywhere.
  def hosts_as_lines
    resource[:hosts].map { |host| "#{host}\n" }.join
  end

  def arguments
    [
      'fire', '--output', 'json', '--certname', Puppet[:certname],
      *(['--hosts-from', '-'] unless resource[:hosts].empty?),
      *resource[:groups].flat_map { |group| ['--group', group] },
      *(['--query', resource[:query]] if resource[:query]),
      '--ttl', resource[:ttl].to_s,
      *(['--loops', 'allow'] if resource[:loops] == :allow),
      *(['--expires-in', resource[:keyttl]] if resource[:keyttl]),
      *(['--prefix', resource[:keyprefix]] if resource[:keyprefix]),
      *(['--backend', self.class.backend] if self.class.backend),
      *declaration,
      *catalog,
      # The name comes after `--`, because it may begin with a dash.
      '--', resource[:name]
    ]
  end

  # Where the resource is declared, for people who ask later why a node ran.
  def declaration
    [
      '--resource', resource.path,
      *(['--resource-file', resource.file] if resource.file),
      *(['--resource-line', resource.line.to_s] if resource.file && resource.line)
    ]
  end

  # The catalog that this run applies, where a Puppet server or `puppet apply` stores it in PuppetDB: nodes that run for this
  # event wait until it is there, with what this node exports.
  def catalog
    uuid = resource.catalog&.catalog_uuid
    stored = Puppet.run_mode.agent? || Puppet[:storeconfigs]
    uuid && stored ? ['--catalog', uuid] : []
  end

  # The program is looked up at each refresh, because the current run may have installed it.
  # Where the class `trigger` says that it is comes first.
  def program
    configured = resource.binary_path
    candidates = DIRECTORIES.map { |directory| File.join(directory, PROGRAM) }
    candidates.unshift(PROGRAM) if ENV['PATH']
    candidates.unshift(configured) if configured
    candidates.each do |candidate|
      found = Puppet::Util.which(candidate)
      return found if found
    end
    places = ['in PATH', "in #{DIRECTORIES.join(', ')}"]
    places.unshift("at #{configured} (trigger::binary_path)") if configured
    raise Puppet::Error, "Cannot fire: the program '#{PROGRAM}' is neither #{places.join(' nor ')}; " \
                         'install Trigger on this node'
  end

  def report(stdout, stderr, status)
    reply = parse(stdout)
    raise Puppet::Error, unreadable(stdout, stderr, status) unless reply

    Array(reply['warnings']).each { |warning| resource.warning(shown(warning)) }
    raise Puppet::Error, "Cannot fire: #{reply['error'] ? shown(reply['error']) : ending(status)}" unless status.success?

    resource.debug("trigger fire: #{stderr}") unless stderr.empty?
    resource.notice(sentence(reply)) if reply['event_id']
    DURABLE.include?(reply['state'])
  end

  # JSON has the exact text of other machines and files. In Puppet's output and log it neither controls a terminal nor
  # makes lines of its own.
  def shown(text)
    line = text.to_s.gsub(/[\t\n\v\f\r\u0085\u2028\u2029]+/, ' ')
    line.gsub(HIDDEN) { |char| format('\u{%x}', char.ord) }
  end

  # Returns nil unless the text is one of the two documents that `trigger fire` prints.
  def parse(stdout)
    reply = JSON.parse(stdout)
    reply if reply.is_a?(Hash) && (reply['event_id'] || reply['error'] || reply['state'] == 'no_targets')
  rescue JSON::ParserError
    nil
  end

  # The program names its states; one that is unknown here (a newer program) is shown as it is. Some targets of
  # an event may be suppressed by the loop guard, and its warnings say which; of an event that is suppressed, all are.
  def sentence(reply)
    targets = Array(reply['targets'])
    groups = Array(reply['groups'])
    if reply['state'] == 'suppressed'
      groups += Array(reply['suppressed_groups'])
    else
      targets = targets.reject { |target| target['state'] == 'suppressed' }
    end
    # Only the backend knows a group's members, so they are not among the targets.
    counts = groups.empty? || !targets.empty? ? [count(targets, 'node')] : []
    counts << count(groups, 'group') unless groups.empty?
    addressed = counts.join(' and ')
    return "Fired #{reply['event_id']} at #{addressed}" if reply['state'] == 'committed'

    "Event #{reply['event_id']} for #{addressed} is #{reply['state']}"
  end

  def count(things, noun)
    things.length == 1 ? "1 #{noun}" : "#{things.length} #{noun}s"
  end

  def unreadable(stdout, stderr, status)
    said = stderr.empty? ? stdout : stderr
    said = said.empty? ? 'it said nothing' : "it said: #{said[-STDERR_SHOWN..] || said}"
    "Cannot fire: the program '#{PROGRAM}' ended with #{ending(status)} and without an answer; #{said}"
  end

  def ending(status)
    status.signaled? ? "signal #{status.termsig}" : "exit code #{status.exitstatus}"
  end

  # Returns the bytes as valid UTF-8, whatever the locale is, so that every log and report can hold them.
  def text(bytes)
    bytes.force_encoding(Encoding::UTF_8).scrub.strip
  end
end
