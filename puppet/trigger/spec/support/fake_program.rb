# frozen_string_literal: true

require 'fileutils'
require 'json'
require 'rbconfig'

# A stand-in for the program `trigger` in a directory of its own. It is strict: arguments that the real command
# line does not know, or input that it would refuse, end with exit code 2 and no JSON. It records each call
# that it understood, and answers like the real one unless a reply is set.
class FakeProgram
  SOURCE = <<~'RUBY'
    require 'json'

    def refuse(why)
      warn "fake trigger: #{why}: #{ARGV.inspect}"
      exit 2
    end

    node = /\A[a-z0-9_][a-z0-9._-]*\z/
    known = {
      '--output' => /\Ajson\z/, '--certname' => node, '--hosts-from' => /\A-\z/, '--group' => node,
      '--ttl' => /\A[1-9]\d*\z/, '--loops' => /\A(avoid|allow)\z/, '--expires-in' => /\A[1-9]\d*[smhd]\z/,
      '--prefix' => %r{\A/.*[^/]\z}, '--backend' => /\A(hub|etcd|dummy:)\z/,
      '--resource' => %r{\A/.*Trigger\[.*\]\z}m, '--resource-file' => %r{\A/}, '--resource-line' => /\A[1-9]\d*\z/,
      '--query' => /\A\w/, '--catalog' => /\A\h{8}(-\h{4}){3}-\h{12}\z/
    }
    words = ARGV.map { |word| word.dup.force_encoding('UTF-8') }
    argv = []
    declared = []
    refuse('not fire') unless words.first == 'fire'
    argv << words.shift
    given = Hash.new { |hash, key| hash[key] = [] }
    until words.first == '--' || words.empty?
      flag, value = words.shift(2)
      refuse("bad #{flag}") unless value && known[flag]&.match?(value)
      given[flag] << value
      (flag.start_with?('--resource') ? declared : argv).push(flag, value)
      refuse("#{flag} twice") if flag != '--group' && given[flag].length > 1
    end
    refuse('no single name after --') unless words.shift == '--' && words.length == 1
    argv.concat(['--', *words])
    refuse('in the process group of Puppet') unless Process.getpgrp == Process.pid
    refuse('incomplete') unless given.key?('--output') && given.key?('--certname')
    input = $stdin.read.force_encoding('UTF-8')
    hosts = input.lines(chomp: true)
    refuse('hosts without --hosts-from') if !hosts.empty? && !given.key?('--hosts-from')
    refuse('no targets') if hosts.empty? && given['--group'].empty? && !given.key?('--query')
    refuse('not a list of certnames') unless hosts.all? { |host| host.match?(node) } && input.end_with?("\n", '')

    File.write("#{__dir__}/calls", JSON.generate(argv: argv, input: input, declared: declared) + "\n", mode: 'a')
    answer = File.exist?("#{__dir__}/answer") ? JSON.parse(File.read("#{__dir__}/answer")) : {}
    $stdout.write(answer['stdout'] || JSON.generate(
      event_id: '01935000-0000-7000-8000-000000000001', trigger: words.first, state: 'committed', revision: 7,
      targets: hosts.map { |host| { certname: host, state: 'pending' } }, warnings: []
    ))
    $stdout.flush
    $stderr.write(answer['stderr']) if answer['stderr']
    Process.kill(answer['signal'], Process.pid) && sleep if answer['signal']
    exit(answer['code'] || 0)
  RUBY

  attr_reader :directory

  # Without `install`, the program is created later: see `text`.
  def initialize(directory, install: true)
    @directory = directory
    FileUtils.mkdir_p(directory)
    return unless install

    File.write(path, text)
    File.chmod(0o755, path)
  end

  def path
    File.join(directory, 'trigger')
  end

  # Without RubyGems it starts in a fraction of the time.
  def text
    "#!#{RbConfig.ruby} --disable=gems\n#{SOURCE}"
  end

  # Sets the output and the end of the next calls: stdout, stderr, code, signal.
  def answer(**how)
    File.write(File.join(directory, 'answer'), JSON.generate(how))
  end

  # Every call so far, without the arguments that say where the resource is declared: [[argv, input], …].
  def calls
    recorded.map { |call| call.values_at('argv', 'input') }
  end

  # For each call, the arguments that say where the resource is declared.
  def declarations
    recorded.map { |call| call['declared'] }
  end

  def recorded
    file = File.join(directory, 'calls')
    File.exist?(file) ? File.readlines(file).map { |line| JSON.parse(line) } : []
  end

  # The names of the triggers that fired, in order.
  def fired
    calls.map { |argv, _input| argv.last }
  end
end
