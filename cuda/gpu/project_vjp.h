// One thread per Gaussian: its sums over all pixels, carried back through projection, colour and activations to gradients, and,
// in training, at once into Adam, so that the gradients never reach memory (with SH 3, 1416 bytes of traffic a Gaussian in place of
// 2124 with a separate Adam).
#pragma once

#include "adam.h"
#include "frame.h"
#include "project.h"
#include "warp.h"

namespace splat {

constexpr uint32_t kOwnSlots = 32;  // slots that a lane sums by itself

// The sums of Gaussian i, from its slots in their order or from where they were added up. All lanes of a warp come by: of a
// Gaussian with many slots they sum shares, which end in the same order every time.
__device__ __forceinline__ void collect_sums(const Frame& f, int64_t i, bool wanted, float (&sums)[kSumFloats]) {
    for (int c = 0; c < kSumFloats; ++c) sums[c] = 0.0f;
    const auto add = [&](const float* from) {
        for (int c = 0; c < kSumFloats; c += 4) {
            const float4 part = *reinterpret_cast<const float4*>(from + c);
            sums[c] += part.x, sums[c + 1] += part.y, sums[c + 2] += part.z, sums[c + 3] += part.w;
        }
    };
    if (!f.slots) {
        if (wanted) add(f.sums + i * kSumFloats);
        return;
    }
    const uint32_t count = wanted ? f.pairs[i] : 0, first = count ? f.first_slot[i] : 0;
    if (count <= kOwnSlots)
        for (uint32_t s = first; s < first + count; ++s)
            if (f.slot_blended[s]) add(f.slots + int64_t(s) * kSumFloats);
    const int lane = int(threadIdx.x) % kWarp;
    for (unsigned large = __ballot_sync(kAllLanes, count > kOwnSlots); large; large &= large - 1) {
        const int owner = __ffs(int(large)) - 1;
        const uint32_t begin = __shfl_sync(kAllLanes, first, owner), slots = __shfl_sync(kAllLanes, count, owner);
        float kept[kSumFloats];
        for (int c = 0; c < kSumFloats; ++c) kept[c] = sums[c], sums[c] = 0.0f;
        for (uint32_t s = begin + uint32_t(lane); s < begin + slots; s += kWarp)
            if (f.slot_blended[s]) add(f.slots + int64_t(s) * kSumFloats);
        for (int c = 0; c < kSumFloats; ++c) {
            const float total = warp_sum(sums[c]);
            sums[c] = lane == owner ? total : kept[c];
        }
    }
}

// At least 4 blocks on a multiprocessor, which leaves 128 registers: asked for no number, the compiler spills a few to fit in more.
template <int kDegree, bool kStaged>
__global__ void __launch_bounds__(kProjectThreads, 4)
    project_vjp_kernel(splat_gaussians g, View view, Frame f, splat_gradients grads, AdamStep adam, bool updates) {
    constexpr int kHigher = sh_bases(kDegree) - 1;
    struct Shared {
        StagedSh<kDegree, kStaged> sh;
        float basis[kProjectThreads][kHigher > 0 ? kHigher : 1];
        float v_color[kProjectThreads][3];
        bool pulled[kProjectThreads];
        float part[kProjectThreads / kWarp];
    };
    SPLAT_SHARED(Shared, shared);
    const int thread = int(threadIdx.x);
    const int64_t first = int64_t(blockIdx.x) * kProjectThreads, i = first + thread;
    const Camera<float>& cam = view.camera;
    const bool exists = i < g.n;

    float sums[kSumFloats];
    collect_sums(f, i, exists && f.pairs[exists ? i : 0] > 0, sums);
    // Where nothing pulls, not even at a pixel that was blended, all gradients are 0. NaN counts as a pull.
    bool pulled = false;
    for (int c = 0; c < kSumFloats; ++c) pulled |= sums[c] != 0.0f;
    shared.pulled[thread] = pulled;
    __syncthreads();
    if constexpr (kStaged && kDegree > 0) {
        stage_sh<kDegree>(g, first, shared.pulled, shared.sh);
        __syncthreads();
    }

    RecordGradients<float> v = {};
    float v_mean[3] = {}, v_sh0[3] = {}, v_W[9] = {}, v_t[3] = {}, v_center[3] = {};
    for (int c = 0; c < 3; ++c) shared.v_color[thread][c] = 0.0f;
    if (pulled) {
        const Record record = f.records[i];
        float mean[3], p[3], quat[4], log_scale[3], dir[3], basis[16], v_basis[16], v_dir[3] = {}, v_offset[3];
        for (int c = 0; c < 3; ++c) mean[c] = g.means[3 * i + c];
        for (int c = 0; c < 4; ++c) quat[c] = g.quats[4 * i + c];
        for (int c = 0; c < 3; ++c) log_scale[c] = g.log_scales[3 * i + c];
        camera_point(cam, mean, p);
        record_vjp(p, quat, log_scale, g.logit_opacities[i], record.qa, record.shear, record.qd, record.opacity, sums + kSumMoments,
                   sums[kSumDepth], cam, view.eps2d, view.antialiased != 0, v, v_W);

        const float inverse_length = view_direction(mean, cam.center, dir);
        sh_basis(kDegree, dir, basis);
        const float v_color[3] = {record.r > 0.0f ? sums[kSumRgb] : 0.0f, record.g > 0.0f ? sums[kSumRgb + 1] : 0.0f,
                                  record.b > 0.0f ? sums[kSumRgb + 2] : 0.0f};
        const float* shN = kStaged ? shared.sh.row + thread * 3 * kHigher : g.shN + 3 * g.k * i;
        for (int c = 0; c < 3; ++c) {
            v_sh0[c] = basis[0] * v_color[c];
            shared.v_color[thread][c] = v_color[c];
        }
#pragma unroll
        for (int j = 0; j < kHigher; ++j) {
            v_basis[j + 1] = shN[3 * j] * v_color[0] + shN[3 * j + 1] * v_color[1] + shN[3 * j + 2] * v_color[2];
            shared.basis[thread][j] = basis[j + 1];
        }
        sh_basis_vjp(kDegree, dir, v_basis, v_dir);
        view_direction_vjp(dir, inverse_length, v_dir, v_offset);
        for (int j = 0; j < 3; ++j) {
            v_mean[j] = cam.W[j] * v.p[0] + cam.W[3 + j] * v.p[1] + cam.W[6 + j] * v.p[2] + v_offset[j];
            v_center[j] = -v_offset[j];
            v_t[j] = v.p[j];
            for (int l = 0; l < 3; ++l) v_W[3 * j + l] += v.p[j] * mean[l];
        }
    }

    if (exists) {
        if (grads.means2d) grads.means2d[2 * i] = v.mean2d[0], grads.means2d[2 * i + 1] = v.mean2d[1];
        if (grads.means2d_abs) grads.means2d_abs[2 * i] = sums[kSumAbs], grads.means2d_abs[2 * i + 1] = sums[kSumAbs + 1];
        if (!updates) {
            for (int c = 0; c < 3; ++c) grads.means[3 * i + c] = v_mean[c];
            for (int c = 0; c < 4; ++c) grads.quats[4 * i + c] = v.quat[c];
            for (int c = 0; c < 3; ++c) grads.log_scales[3 * i + c] = v.log_scale[c];
            grads.logit_opacities[i] = v.logit;
            for (int c = 0; c < 3; ++c) grads.sh0[3 * i + c] = v_sh0[c];
        } else if (pulled || !adam.only_touched) {
            for (int c = 0; c < 3; ++c) adam_at(adam, 0, 3 * i + c, v_mean[c]);
            for (int c = 0; c < 4; ++c) adam_at(adam, 1, 4 * i + c, v.quat[c]);
            for (int c = 0; c < 3; ++c) adam_at(adam, 2, 3 * i + c, v.log_scale[c]);
            adam_at(adam, 3, i, v.logit);
            for (int c = 0; c < 3; ++c) adam_at(adam, 4, 3 * i + c, v_sh0[c]);
        }
    }

    // The higher SH coefficients, three quarters of all numbers: the block walks over those of its Gaussians side by side. All have
    // been read by now.
    __syncthreads();
    const int width = updates ? adam.active_higher * 3 : g.k * 3;
    const int64_t left = g.n - first;
    const int rows = int(left < kProjectThreads ? left : kProjectThreads);
    if (kStaged) {
        for (int e = thread; e < rows * width; e += kProjectThreads) {
            const int row = e / width, column = e - row * width, j = column / 3;
            const float grad = j < kHigher && shared.pulled[row] ? shared.basis[row][j] * shared.v_color[row][column - 3 * j] : 0.0f;
            const int64_t at = (first + row) * 3 * g.k + column;
            if (!updates)
                grads.shN[at] = grad;
            else if (shared.pulled[row] || !adam.only_touched)
                adam_at(adam, 5, at, grad);
        }
    } else if (exists) {
        for (int column = 0; column < width; ++column) {
            const int j = column / 3;
            const float grad = j < kHigher && pulled ? shared.basis[thread][j] * shared.v_color[thread][column - 3 * j] : 0.0f;
            const int64_t at = i * 3 * g.k + column;
            if (!updates)
                grads.shN[at] = grad;
            else if (pulled || !adam.only_touched)
                adam_at(adam, 5, at, grad);
        }
    }

    if (!f.pose_partial) return;
    float pose_W[9], pose_t[3], pose_center[3];
    for (int j = 0; j < 9; ++j) pose_W[j] = block_sum<kProjectThreads / kWarp>(v_W[j], shared.part);
    for (int j = 0; j < 3; ++j) pose_t[j] = block_sum<kProjectThreads / kWarp>(v_t[j], shared.part);
    for (int j = 0; j < 3; ++j) pose_center[j] = block_sum<kProjectThreads / kWarp>(v_center[j], shared.part);
    if (thread == 0) {
        camera_center_vjp(cam.W, cam.t, pose_center, pose_W, pose_t);
        float* partial = f.pose_partial + int64_t(blockIdx.x) * kPoseFloats;
        for (int j = 0; j < 9; ++j) partial[j] = pose_W[j];
        for (int j = 0; j < 3; ++j) partial[9 + j] = pose_t[j];
    }
}

// v_viewmat [16] from the sums of the blocks [blocks, kPoseFloats], in a fixed order.
__global__ void __launch_bounds__(256) pose_kernel(Frame f, int64_t blocks, float* v_viewmat) {
    struct Shared {
        double part[8];
    };
    SPLAT_SHARED(Shared, shared);
    for (int j = 0; j < kPoseFloats; ++j) {
        double sum = 0.0;
        for (int64_t block = threadIdx.x; block < blocks; block += 256) sum += double(f.pose_partial[block * kPoseFloats + j]);
        sum = block_sum<8>(sum, shared.part);
        if (threadIdx.x == 0) v_viewmat[j < 9 ? 4 * (j / 3) + j % 3 : 4 * (j - 9) + 3] = float(sum);
    }
    if (threadIdx.x < 4) v_viewmat[12 + threadIdx.x] = 0.0f;
}

}  // namespace splat
