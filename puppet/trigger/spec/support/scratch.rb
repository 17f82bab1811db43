# frozen_string_literal: true

require 'fileutils'
require 'open3'
require 'tmpdir'

# Gives each example a directory of its own and runs `puppet apply` there, separated from the machine's own Puppet as
# far as its settings allow.
module Scratch
  MODULES = File.expand_path('../../..', __dir__)

  Run = Struct.new(:output, :code) do
    # Puppet's warnings and errors, without those of Facter about a container.
    def problems
      output.lines(chomp: true).grep(/Warning|Error/).grep_v(/Facter:/)
    end
  end

  def self.included(group)
    group.around do |example|
      Dir.mktmpdir('trigger-spec') do |directory|
        @scratch = directory
        example.run
      end
    end
  end

  attr_reader :scratch

  # Applies a manifest with the fake program's directory first in PATH. Returns Puppet's output and its detailed
  # exit code. Everything that Puppet 8 refuses by default is refused here too.
  def puppet_apply(manifest, program, *flags, modules: MODULES)
    File.write(File.join(scratch, 'site.pp'), manifest)
    # `last_run_summary.yaml` lives in publicdir, which `--vardir` does not move.
    directories = %w[confdir vardir publicdir codedir].flat_map { |name| ["--#{name}", File.join(scratch, name)] }
    output, status = Open3.capture2e(
      { 'PATH' => "#{program.directory}:/usr/bin:/bin", 'HOME' => scratch, 'LC_ALL' => 'C.UTF-8' },
      'puppet', 'apply', '--certname', 'web01.example.com', '--modulepath', modules, *directories,
      '--strict=error', '--strict_variables', '--detailed-exitcodes', '--color=false', *flags,
      File.join(scratch, 'site.pp')
    )
    Run.new(output, status.exitstatus)
  end
end
