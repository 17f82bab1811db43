# frozen_string_literal: true

require 'puppet_x/trigger/fired_data'

RSpec.describe 'the data that a trigger has fired for' do
  def digest(data)
    PuppetX::Trigger::FiredData.digest_of(data)
  end

  def sensitive(data)
    Puppet::Pops::Types::PSensitiveType::Sensitive.new(data)
  end

  it 'have a digest that is the same in every version, or each upgrade would fire' do
    data = { 'b' => [1, 1.5, true, nil, :undef], 'a' => 'größer "x"', 'c' => sensitive('secret') }
    expect(digest(data)).to eq '336a300870565eba064e0de8b9dc82d3efe25735403349323f0e4c60bfcc1caf'
  end

  it 'are the same in any order of keys, and whether they are secret or not' do
    expect(digest('a' => { 'x' => 1, 'y' => 2 }, 'b' => 3)).to eq digest('b' => 3, 'a' => { 'y' => 2, 'x' => 1 })
    expect(digest('a' => sensitive(['x']))).to eq digest('a' => ['x'])
  end

  it 'differ where a value does, or its type, or the order of a list' do
    values = ['', 'a', 'b', 1, 1.0, '1', true, 'true', false, nil, 'undef', [], {}, '[]', ['a'], %w[a b], %w[b a], ['a,b'], ['a', ['b']],
              [['a'], 'b'], { 'a' => 'b' }, { 'a' => nil }, { 'a' => ['b'] }, { 'b' => 'a' }, 'a=>b', :default, /a/]
    expect(values.map { |value| digest(value) }.uniq.length).to eq values.length
  end

  describe 'on the disk' do
    include Scratch

    before { Puppet[:statedir] = "#{scratch}/state" }

    it 'are kept for each trigger, under any name, for their owner only' do
      one = PuppetX::Trigger::FiredData.new('a/../b')
      other = PuppetX::Trigger::FiredData.new('x' * 255)
      expect(one.digest).to be_nil
      one.digest = 'd1'
      one.digest = 'd2'
      expect([one.digest, other.digest]).to eq ['d2', nil]
      expect(PuppetX::Trigger::FiredData.new('a/../b').digest).to eq 'd2'
      expect(File.stat(one.path).mode & 0o777).to eq 0o600
      expect(Dir.children(File.dirname(one.path)).length).to eq 1
    end
  end
end
